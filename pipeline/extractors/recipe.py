"""The paper's recipe for an LSE: Adam on whole images, gradients accumulated over 1, 4, 64.

Kept as `solver: adam` and as the baseline of the benchmark; the default solver is in fitting.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.data.arrays import Group
from pipeline.data.stores import Store
from pipeline.extractors.networks import LSE
from pipeline.generators.taps import Tap
from pipeline.runtime.errors import InputError
from pipeline.runtime.progress import say

EPOCH = 1024  # samples
# (epochs, samples per step): 2,048 + 4,096 + 512 = 6,656 steps over 51,200 samples.
SCHEDULE = ((2, 1), (16, 4), (32, 64))
LEARNING_RATE, DECAY_EPOCH = 1e-3, 20


@dataclass(frozen=True)
class Sample:
    """One cached sample: int8 or float16 taps [C, H, W], their scales [C] or None, and the mask."""

    taps: list[Tensor]
    scales: list[Tensor | None]
    mask: Tensor


class CachedSamples:
    """Samples of a split of a feature store, with their masks, on a device."""

    def __init__(self, store: Store, masks: str, split: str, taps: Sequence[Tap], device: str):
        self.store, self.split, self.taps, self.device = store, split, tuple(taps), device
        self.masks = Group(masks).read(split, "masks")
        self.names = [tap.name for tap in taps]
        dims = {array.name: array.dims for array in store.plan.arrays}
        self.scaled = f"{self.names[0]}.scale" in dims
        if (found := dims[self.names[0]]) != ("y", "x", "channel"):
            raise InputError(
                f"maps of {self.names[0]} as {', '.join(found)}",
                "y, x, channel",
                "run `dvc repro` to make the store again",
            )

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, row: int) -> Sample:
        def tensor(name: str) -> Tensor:
            return torch.from_numpy(self.store.view(self.split, name, row)).to(self.device)

        return Sample(
            # Stored as [H, W, C]; the permuted view is channels-last and copies nothing.
            [tensor(name).permute(2, 0, 1) for name in self.names],
            [tensor(f"{name}.scale") if self.scaled else None for name in self.names],
            torch.from_numpy(self.masks[row]).long().to(self.device),
        )


def logits_as_published(weights: Sequence[Tensor], sample: Sample, align_corners: bool) -> Tensor:
    """One float32 1x1 convolution a tap, each upsampled to label size, then added."""
    size = sample.mask.shape[-1]
    total: Tensor | int = 0
    for weight, x, scale in zip(weights, sample.taps, sample.scales, strict=True):
        x = x.contiguous().float()  # channels first: so convolved and upsampled twice as fast
        x = x if scale is None else x.mul_(scale[:, None, None])
        part = F.conv2d(x[None], weight[..., None, None])
        total = total + F.interpolate(
            part, (size, size), mode="bilinear", align_corners=align_corners
        )
    assert isinstance(total, Tensor), "an extractor without taps"
    return total


def logits_fast(weights: Sequence[Tensor], sample: Sample, align_corners: bool) -> Tensor:
    """The same logits: scales folded into the weights, bfloat16 products, one upsampling a size."""
    size = sample.mask.shape[-1]
    by_size: dict[int, Tensor] = {}
    for weight, x, scale in zip(weights, sample.taps, sample.scales, strict=True):
        weight = weight if scale is None else weight * scale
        part = (weight.bfloat16() @ x.flatten(1).bfloat16()).float().unflatten(1, x.shape[1:])
        side = x.shape[-1]
        by_size[side] = by_size[side] + part if side in by_size else part
    total = sum(
        F.interpolate(part[None], (size, size), mode="bilinear", align_corners=align_corners)
        for part in by_size.values()
    )
    assert isinstance(total, Tensor), "an extractor without taps"
    return total


def passes(num_samples: int, epochs: float = 50.0, seed: int = 0) -> Iterator[tuple[int, int]]:
    """Yield (sample, samples per step) for every pass of the schedule, shortened to `epochs`."""
    rng = np.random.default_rng(seed)
    order: list[int] = []
    for length, accumulate in SCHEDULE:
        count = int(length * EPOCH * epochs / 50) // accumulate * accumulate
        for _ in range(count):
            if not order:
                order = rng.permutation(num_samples).tolist()
            yield order.pop(), accumulate


def fit_adam(
    samples: CachedSamples,
    classes: Sequence[str],
    align_corners: bool,
    epochs: float = 50.0,  # of 1,024 samples; the paper's is 50; the schedule keeps its shares
    fast: bool = True,
    seed: int = 0,
    on_step: Callable[[int, int, LSE], None] | None = None,  # (step, pass, extractor so far)
) -> tuple[LSE, dict]:
    """Fit an LSE on the cached taps by the recipe; return it and the facts of the fit."""
    torch.manual_seed(seed)
    extractor = LSE(classes, samples.taps, align_corners=align_corners).to(samples.device)
    weights = list(extractor.weights)
    optimizer = torch.optim.Adam(weights, LEARNING_RATE, betas=(0.9, 0.999))
    logits = logits_fast if fast else logits_as_published
    steps = pending = done = 0
    last = time.perf_counter()
    for row, accumulate in passes(len(samples), epochs, seed):
        sample = samples[row]
        loss = F.cross_entropy(logits(weights, sample, align_corners), sample.mask[None])
        (loss / accumulate).backward()
        pending, done = pending + 1, done + 1
        if pending == accumulate:
            decayed = done > DECAY_EPOCH * EPOCH * epochs / 50
            optimizer.param_groups[0]["lr"] = LEARNING_RATE / (10 if decayed else 1)
            optimizer.step()
            optimizer.zero_grad()
            pending, steps = 0, steps + 1
            if on_step is not None:
                on_step(steps, done, extractor)
        if time.perf_counter() - last > 30:
            last = time.perf_counter()
            say(f"adam: step {steps}, pass {done}, loss {float(loss.detach()):.4f}")
    return extractor.requires_grad_(False), {
        "solver": "adam",
        "steps": steps,
        "passes": done,
        "parameters": sum(p.numel() for p in extractor.parameters()),
    }


def predict_cached(extractor: LSE, samples: CachedSamples) -> np.ndarray:
    """Masks [N, S, S] from cached taps, without a generator."""
    weights = list(extractor.weights)
    with torch.inference_mode():
        masks = [
            logits_fast(weights, samples[i], extractor.align_corners)[0].argmax(0)
            for i in range(len(samples))
        ]
    return torch.stack(masks).to(torch.uint8).cpu().numpy()
