"""Masks or scores of extractors while the features stream by: nothing is stored."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int, UInt8
from torch import Tensor

from pipeline import workers
from pipeline.arrays import Group
from pipeline.devices import fast_bfloat16
from pipeline.errors import InputError
from pipeline.extractors import LSE, Extractor, load_extractor, save_extractor
from pipeline.features import Source, stream
from pipeline.metrics import PixelCounts

BATCH = 16
TOGETHER = 4  # extractors whose logits are held at a time: 16 MB of 15 classes at 256 px


@dataclass(frozen=True)
class PredictTask:
    """Samples [start, stop) of a split for extractors to segment while they are synthesized."""

    extractors: tuple[str, ...]
    source: Source
    split: str
    start: int
    stop: int
    size: int


@lru_cache(maxsize=8)
def _extractor(path: str, device: str) -> Extractor:
    return load_extractor(path, device)


def _predict(task: PredictTask) -> UInt8[np.ndarray, "extractor sample size size"]:
    extractors = [_extractor(path, task.source.device) for path in task.extractors]
    read = {tap for extractor in extractors for tap in extractor.taps}
    taps = [tap for tap in task.source.generator().taps if tap in read]
    parts = stream(task.source, task.split, task.start, task.stop, taps)
    masks = [[one.predict(features, task.size) for one in extractors] for features, _ in parts]
    return np.concatenate([np.stack(part) for part in masks], 1)


def check_extractor(extractor: str, source: Source, classes: Sequence[str] | None) -> None:
    """InputError if the file reads taps that the generator lacks, or has other classes."""
    loaded, taps = load_extractor(extractor), source.generator().taps
    if missing := [tap.name for tap in loaded.taps if tap not in taps]:
        raise InputError(
            f"{extractor}, which reads tap {missing[0]}",
            f"an extractor of this generator, whose taps are {', '.join(t.name for t in taps)}",
            "name an extractor of the same study, or fit one",
        )
    if classes is not None and list(classes) != list(loaded.classes):
        raise InputError(
            f"{extractor} with classes {', '.join(loaded.classes)}",
            f"those of the masks: {', '.join(classes)}",
            "fit the extractor on these masks",
        )


def predict_masks(
    extractors: Sequence[str],  # fitted ones
    source: Source,
    split: str,
    size: int,  # label size in px
    num_workers: int = 0,
    classes: Sequence[str] | None = None,  # that the masks must have; None: any
) -> UInt8[np.ndarray, "extractor sample size size"]:
    """Every extractor's masks of a split, which is synthesized once for all, never stored."""
    for extractor in extractors:
        check_extractor(extractor, source, classes)
    total = Group(source.latents).splits[split]
    step = max(BATCH, source.batch_size)
    tasks = [
        PredictTask(tuple(extractors), source, split, start, min(start + step, total), size)
        for start in range(0, total, step)
    ]
    processes = workers.count(num_workers, source.device, len(tasks))
    return np.concatenate(list(workers.run(_predict, tasks, f"segmenting {split}", processes)), 1)


def stack(extractors: Sequence[LSE]) -> LSE:
    """One LSE whose classes are those of all `extractors`, one extractor after the other."""
    first = extractors[0]
    for other in extractors:
        if (other.taps, other.classes, other.align_corners) != (
            first.taps,
            first.classes,
            first.align_corners,
        ):
            raise InputError(
                f"extractors of {len(first.taps)} taps and {len(first.classes)} classes beside "
                f"one of {len(other.taps)} taps and {len(other.classes)} classes",
                "equal taps, classes and align_corners",
                "score them apart",
            )
    if any(one.bias is not None for one in extractors):
        raise InputError("an extractor with a bias", "none", "score it by evaluate_extractor")
    stacked = LSE(first.classes * len(extractors), first.taps, align_corners=first.align_corners)
    for weight, *parts in zip(stacked.weights, *(one.weights for one in extractors), strict=True):
        weight.data = torch.cat([part.detach() for part in parts])
    return stacked.requires_grad_(False)


@torch.inference_mode()
def stacked_masks(
    stacked: LSE, num_classes: int, features: Mapping[str, Tensor], size: int
) -> Iterator[UInt8[np.ndarray, "sample size size"]]:
    """The masks of every extractor in a stack: what each one's `predict` would give.

    A tap finer than the masks is resized before it is projected, which commutes; the taps of one
    resolution are one matrix product for all extractors that read them. In bfloat16 where that is
    fast.
    """
    device = stacked.weights[0].device
    dtype = torch.bfloat16 if fast_bfloat16(str(device)) else torch.float32
    by_side: dict[int, list[tuple[Tensor, Tensor]]] = {}
    for tap, weight in zip(stacked.taps, stacked.weights, strict=True):
        x = features[tap.name].float()
        if tap.resolution > size:
            x = _resized(x, size, stacked.align_corners)
        by_side.setdefault(x.shape[-1], []).append((x, weight))
    step = TOGETHER * num_classes
    first, *finer = by_side.values()
    layers = [_products(first, dtype, step, unread=True)]
    layers += [_products(pairs, dtype, step) for pairs in finer]
    for index in layers[0]:
        parts = (layer[index].float() for layer in layers if index in layer)
        # Channels last, as the product leaves them: interpolation is three times as fast.
        logits = sum(_resized(p.permute(0, 3, 1, 2), size, stacked.align_corners) for p in parts)
        by_extractor = logits.permute(0, 2, 3, 1).unflatten(-1, (-1, num_classes))
        masks = by_extractor.max(-1).indices.to(torch.uint8)  # argmax takes twice as long
        yield from masks.permute(3, 0, 1, 2).cpu().numpy()


def _products(
    pairs: Sequence[tuple[Tensor, Tensor]], dtype: torch.dtype, step: int, unread: bool = False
) -> dict[int, Tensor]:
    """Logits [N, H, W, step] of taps of one resolution, by the index of their block of classes.

    Blocks with weights of 0 alone, which do not read these taps, only if `unread`.
    """
    blocks = torch.cat([weight for _, weight in pairs], 1).split(step)
    read = [i for i, block in enumerate(blocks) if unread or bool(block.any())]
    if not read:
        return {}
    x = torch.cat([x.to(dtype) for x, _ in pairs], 1).permute(0, 2, 3, 1)
    found = x @ torch.cat([blocks[i] for i in read]).to(dtype).T
    return dict(zip(read, found.split([len(blocks[i]) for i in read], -1), strict=True))


def _resized(x: Tensor, size: int, align_corners: bool) -> Tensor:
    if x.shape[-1] == size:
        return x
    return F.interpolate(x, (size, size), mode="bilinear", align_corners=align_corners)


@dataclass(frozen=True)
class CountTask:
    """Samples [start, stop) of a split, on which a stack of extractors is scored."""

    stacked: str
    num_classes: int
    source: Source
    masks: str
    split: str
    start: int
    stop: int


def _count(task: CountTask) -> Int[np.ndarray, "extractor sample class class"]:
    stacked = _extractor(task.stacked, task.source.device)
    targets = Group(task.masks).read(task.split, "masks", slice(task.start, task.stop))
    num = len(stacked.classes) // task.num_classes
    counts, done = [PixelCounts(task.num_classes) for _ in range(num)], 0
    for features, _ in stream(task.source, task.split, task.start, task.stop, stacked.taps):
        target = targets[done : done + len(features[stacked.taps[0].name])]
        masks = stacked_masks(stacked, task.num_classes, features, targets.shape[-1])
        for count, predicted in zip(counts, masks, strict=True):
            count.add(predicted, target)
        done += len(target)
    return np.stack([count.per_image for count in counts])


def confusions(
    extractors: Sequence[LSE],  # of equal taps and classes
    source: Source,
    masks: str,  # zarr group of the target masks
    split: str,
    num_workers: int = 0,
) -> Int[np.ndarray, "extractor sample class class"]:
    """Confusion matrices of many extractors on a split, which is synthesized once for all."""
    known = source.generator().taps
    if foreign := [tap for tap in extractors[0].taps if tap not in known]:
        raise InputError(
            f"an extractor of tap {foreign[0].name} with {foreign[0].channels} channels",
            f"taps of the generator, {', '.join(tap.name for tap in known)}",
            "name an extractor of this study",
        )
    total, step = Group(source.latents).splits[split], max(BATCH, source.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "stack.safetensors")
        save_extractor(path, stack(extractors), {})
        tasks = [
            CountTask(
                path,
                len(extractors[0].classes),
                source,
                masks,
                split,
                start,
                min(start + step, total),
            )
            for start in range(0, total, step)
        ]
        processes = workers.count(num_workers, source.device, len(tasks))
        found = list(workers.run(_count, tasks, f"scoring {len(extractors)} on {split}", processes))
    return np.concatenate(found, 1)
