"""The paper's recipe for an LSE: Adam on whole images, gradients accumulated over 1, 4, 64.

Kept as `solver: adam` and as the baseline of the benchmark; the default solver is in fitting.
"""

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.extractors.networks import LSE
from pipeline.extractors.samples import CachedSamples, Sample
from pipeline.runtime.progress import say

EPOCH = 1024  # samples
# (epochs, samples per step): 2,048 + 4,096 + 512 = 6,656 steps over 51,200 samples.
SCHEDULE = ((2, 1), (16, 4), (32, 64))
LEARNING_RATE, DECAY_EPOCH = 1e-3, 20


def logits_as_published(weights: Sequence[Tensor], sample: Sample, align_corners: bool) -> Tensor:
    """One float32 1x1 convolution a tap, each upsampled to label size, then added."""
    size, total = sample.mask.shape[-1], 0
    for weight, x, scale in zip(weights, sample.taps, sample.scales, strict=True):
        x = x.contiguous().float()  # channels first: so convolved and upsampled twice as fast
        x = x if scale is None else x.mul_(scale[:, None, None])
        part = F.conv2d(x[None], weight[..., None, None])
        total = total + F.interpolate(
            part, (size, size), mode="bilinear", align_corners=align_corners
        )
    return total


def logits_fast(weights: Sequence[Tensor], sample: Sample, align_corners: bool) -> Tensor:
    """The same logits: scales folded into the weights, bfloat16 products, one upsampling a size."""
    size, by_size = sample.mask.shape[-1], {}
    for weight, x, scale in zip(weights, sample.taps, sample.scales, strict=True):
        weight = weight if scale is None else weight * scale
        part = (weight.bfloat16() @ x.flatten(1).bfloat16()).float().unflatten(1, x.shape[1:])
        side = x.shape[-1]
        by_size[side] = by_size[side] + part if side in by_size else part
    return sum(
        F.interpolate(part[None], (size, size), mode="bilinear", align_corners=align_corners)
        for part in by_size.values()
    )


def passes(num_samples: int, epochs: float = 50.0, seed: int = 0) -> Iterator[tuple[int, int]]:
    """Yield (sample, samples per step) for every pass of the schedule, shortened to `epochs`."""
    rng, order = np.random.default_rng(seed), []
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
    start, cpu = time.perf_counter(), time.process_time()
    extractor = LSE(classes, samples.taps, align_corners=align_corners).to(samples.device)
    weights = list(extractor.weights)
    optimizer = torch.optim.Adam(weights, LEARNING_RATE, betas=(0.9, 0.999))
    logits = logits_fast if fast else logits_as_published
    steps = pending = done = 0
    last = start
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
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
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
