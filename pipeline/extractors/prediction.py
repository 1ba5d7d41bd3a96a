"""Masks or scores of extractors while the features stream by: nothing is stored."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from pipeline.data.arrays import Group
from pipeline.data.features import Source, stream
from pipeline.extractors.networks import (
    LSE,
    Extractor,
    interpolation,
    interpolation_span,
    load_extractor,
    save_extractor,
)
from pipeline.metrics.iou import PixelCounts
from pipeline.runtime import workers
from pipeline.runtime.devices import fast_bfloat16
from pipeline.runtime.errors import InputError

BATCH = 16
TILE = 16  # px of a mask's tile: 1.6 MB of logits of 110 extractors of 15 classes
GPU_TILE = 32  # fewer products, for a device that has them wait


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


@dataclass(frozen=True)
class _Layer:
    """The taps of one resolution as one, and the extractors that read any of them.

    Logits are those less the first class's: the largest stays the largest, with a class less to
    compute.
    """

    x: Tensor  # [N, H, W, C]
    weight: Tensor  # [classes - 1, read, C]
    read: Tensor  # indices of extractors
    extractors: int  # in all

    def logits(self, *part: int | slice) -> Float[Tensor, "pixel rest extractor"]:
        """In float32, of a part of x; 0 for an extractor that does not read these taps."""
        pixels = self.x[part].reshape(-1, self.x.shape[-1])
        found = (pixels @ self.weight.flatten(0, 1).T).float()
        found = found.view(len(pixels), *self.weight.shape[:2])
        if len(self.read) == self.extractors:
            return found
        zeros = found.new_zeros(*found.shape[:2], self.extractors)
        return zeros.index_copy_(2, self.read, found)


@dataclass(frozen=True)
class _Tile:
    """A part of a mask: what of each coarser layer it depends on, and how."""

    place: tuple[slice, slice]  # rows and columns of the mask
    regions: tuple[tuple[slice, slice], ...]  # of each coarser layer
    weights: Float[Tensor, "pixel coarse_pixel"]  # over the pixels of all regions


@torch.inference_mode()
def stacked_masks(
    stacked: LSE, num_classes: int, features: Mapping[str, Tensor], size: int
) -> Iterator[UInt8[np.ndarray, "sample size size"]]:
    """The masks of every extractor in a stack: what each one's `predict` would give.

    A tap finer than the masks is resized before it is projected, which commutes; the taps of one
    resolution are one matrix product for all extractors that read them, in bfloat16 where that is
    fast. Coarser logits are never upsampled as whole maps: for a tile of the masks at a time, one
    more product interpolates and adds them, while the tile's logits stay in a CPU's cache.
    """
    layers = _layers(stacked, num_classes, features, size)
    masks = [
        _sample_masks(layers, sample, size, stacked.align_corners)
        for sample in range(len(layers[0].x))
    ]
    yield from torch.stack(masks, 1).cpu().numpy()


def _layers(
    stacked: LSE, num_classes: int, features: Mapping[str, Tensor], size: int
) -> list[_Layer]:
    """The taps by resolution, which is `size` at most."""
    dtype = torch.bfloat16 if fast_bfloat16(str(stacked.weights[0].device)) else torch.float32
    by_side: dict[int, list[tuple[Tensor, Tensor]]] = {}
    for tap, weight in zip(stacked.taps, stacked.weights, strict=True):
        x = features[tap.name].float()
        if tap.resolution > size:
            x = _resized(x, size, stacked.align_corners)
        by_class = weight.unflatten(0, (-1, num_classes)).transpose(0, 1)
        pair = x.to(dtype).permute(0, 2, 3, 1), by_class[1:] - by_class[:1]
        by_side.setdefault(x.shape[-1], []).append(pair)
    found = []
    for pairs in by_side.values():
        x, weight = (torch.cat(parts, -1) for parts in zip(*pairs, strict=True))
        read = weight.ne(0).any(2).any(0).nonzero()[:, 0]
        found.append(_Layer(x, weight[:, read].to(dtype), read, weight.shape[1]))
    return found


def _sample_masks(
    layers: Sequence[_Layer], sample: int, size: int, align_corners: bool
) -> UInt8[Tensor, "extractor size size"]:
    """The masks of one sample, tile by tile."""
    num, device = layers[0].extractors, layers[0].x.device
    fine = [layer for layer in layers if layer.x.shape[1] == size]
    coarser = [layer for layer in layers if layer.x.shape[1] < size]
    sides = tuple(layer.x.shape[1] for layer in coarser)
    coarse = [
        layer.logits(sample).view(side, side, -1)
        for layer, side in zip(coarser, sides, strict=True)
    ]
    masks = torch.empty(size, size, num, dtype=torch.uint8, device=device)
    for tile in _tiles(sides, size, align_corners, str(device)):
        parts = [layer.logits(sample, *tile.place) for layer in fine]
        logits = _with_coarse(parts[0] if parts else None, coarse, tile)
        out = masks[tile.place]
        out.copy_(_largest(logits.view(len(logits), -1, num)).view(out.shape))
    return masks.permute(2, 0, 1)


def _with_coarse(
    fine: Float[Tensor, "pixel rest extractor"] | None,
    coarse: Sequence[Tensor],  # [side, side, rest * extractor] of each coarser layer
    tile: _Tile,
) -> Tensor:
    """A tile's logits of the finest layer and of all coarser ones, interpolated: one product."""
    if not coarse:
        assert fine is not None, "a stack of no layer"
        return fine
    regions = [
        logits[region].flatten(0, 1) for logits, region in zip(coarse, tile.regions, strict=True)
    ]
    read = torch.cat(regions)
    return tile.weights @ read if fine is None else fine.flatten(1).addmm_(tile.weights, read)


def _largest(logits: Float[Tensor, "pixel rest extractor"]) -> UInt8[Tensor, "pixel extractor"]:
    """The first class of the largest logit, where the first class's own is 0 and left out.

    Positive floats are ordered as their bits are, read as integers. The last few bits, a millionth
    of a logit for 15 classes, give way to the class, so that one maximum finds both: a tenth of
    what argmax takes on a CPU. Of equals the first class has the largest bits, and what is not
    positive is less than those of the class that is left out.
    """
    rest = logits.shape[1]
    full = 1 << rest.bit_length()
    classes = torch.arange(1, rest + 1, dtype=torch.int32, device=logits.device)
    bits = logits.view(torch.int32).bitwise_and_(-full).bitwise_or_(full - classes[:, None])
    return bits.amax(1).clamp_min_(full).neg_().bitwise_and_(full - 1).to(torch.uint8)


@lru_cache(maxsize=2)
def _tiles(sides: tuple[int, ...], size: int, align_corners: bool, device: str) -> list[_Tile]:
    """The tiles of a mask over coarser layers of these sides."""
    step = TILE if device == "cpu" else GPU_TILE
    parts = [slice(start, min(start + step, size)) for start in range(0, size, step)]
    # How a part's rows, or columns, depend on those of each layer: which, and by what weights.
    axes = [[_along(side, size, align_corners, part) for side in sides] for part in parts]
    found = []
    for (rows, vertical), (columns, horizontal) in product(zip(parts, axes, strict=True), repeat=2):
        pairs = list(zip(vertical, horizontal, strict=True))
        regions = tuple((y, x) for (y, _), (x, _) in pairs)
        weights = [torch.kron(down, across) for (_, down), (_, across) in pairs]
        empty = torch.empty(0, 0)  # no coarser layer
        found.append(_Tile((rows, columns), regions, torch.cat(weights or [empty], 1).to(device)))
    return found


def _along(side: int, size: int, align_corners: bool, part: slice) -> tuple[slice, Tensor]:
    """What a part of `size` pixels is interpolated from along one axis of `side`, and how."""
    used = slice(*interpolation_span(side, size, align_corners, part.start, part.stop))
    return used, interpolation(side, size, align_corners)[part, used]


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
    assert isinstance(stacked, LSE), "only LSEs are stacked"
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
