"""From ws to feature maps: streamed, cached as native taps, or sampled as hypercolumns."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.data.arrays import Group
from pipeline.data.images import to_uint8
from pipeline.data.pixels import draw_pixels, hypercolumns
from pipeline.data.plans import Array, Plan, Shard
from pipeline.data.stores import Store
from pipeline.generators.registry import Generator, load_generator
from pipeline.generators.taps import Tap, find, record, watch
from pipeline.runtime import workers
from pipeline.runtime.devices import pick_compute, pick_device
from pipeline.runtime.errors import InputError, choose
from pipeline.runtime.progress import say

VERSION = 2  # raise it when the same parameters should give other values
STORED = ("float16", "int8")
BLOCK = 2**16  # values encoded at a time: few enough to stay in the cache between passes
TOLERANCE = 0.02  # of a sample's largest value: int8 rounding is 0.004, bfloat16 noise 0.01


@dataclass(frozen=True)
class Source:
    """What it takes to synthesize a study's samples, in this or another process."""

    checkpoint: str
    latents: str  # zarr group with <split>/ws
    device: str = "cpu"
    compute: str = "float32"

    @property
    def batch_size(self) -> int:
        """Samples a forward pass: on a CPU about 256 px square in all, which caches hold."""
        on_cpu = max(1, (256 // self.generator().resolution) ** 2)
        return on_cpu if self.device == "cpu" else max(16, on_cpu)

    def generator(self) -> Generator:
        """The frozen generator, loaded once a process."""
        return _generator(self.checkpoint, self.device, self.compute)

    def ws(self, split: str, start: int, stop: int) -> Tensor:
        """ws [stop - start, num_ws, w_dim] of a split."""
        values = Group(self.latents).read(split, "ws", slice(start, stop))
        return torch.from_numpy(values).to(self.device)


def open_source(checkpoint: str | Path, latents: str | Path, device: str, compute: str) -> Source:
    """A study's generator and latents on the device, and in the dtype, that the options name."""
    where = pick_device(device)
    return Source(str(checkpoint), str(latents), where, pick_compute(compute, where))


@lru_cache(maxsize=2)
def _generator(checkpoint: str, device: str, compute: str) -> Generator:
    return load_generator(checkpoint, device=device, dtype=compute)


def stream(
    source: Source,
    split: str,
    start: int,
    stop: int,
    taps: Sequence[Tap],
    images: bool = False,  # also synthesize the image; else the pass ends at the last tap
) -> Iterator[tuple[dict[str, Tensor], Tensor | None]]:
    """Yield ({tap name: [N, C, H, W]}, images or None) batch by batch; nothing on disk."""
    generator = source.generator()
    for tap in taps:
        find(generator.taps, tap.name)  # an extractor of another study names taps unknown here
    last = [tap for tap in generator.taps if tap in taps][-1]
    for ws in _batches(source, split, start, stop):
        with torch.inference_mode(), record(generator, taps) as features:
            drawn = generator.synthesis(ws, stop_at=None if images else last)
        yield features, drawn


def _batches(source: Source, split: str, start: int, stop: int) -> Iterator[Tensor]:
    """ws [N, num_ws, w_dim] of samples [start, stop), one forward pass after another."""
    for first in range(start, stop, source.batch_size):
        yield source.ws(split, first, min(first + source.batch_size, stop))


def encode(
    x: Float[Tensor, "sample ... channel"],
    codes: np.ndarray,  # [N, ..., C], to be filled: float16, or int8 with a scale
    scale: np.ndarray | None,  # [N, C], to be filled: one a sample and channel
) -> None:
    """Store a batch: as float16, or as round(x / scale) in int8.

    The scale is the largest magnitude / 127, so nothing is ever clipped.
    """
    if scale is None:
        torch.from_numpy(codes).copy_(x)
        return
    for sample, out, row in zip(x, codes, scale, strict=True):
        channels = sample.shape[-1]
        _round(sample.reshape(-1, channels), torch.from_numpy(out).view(-1, channels), row)


def _round(pixels: Tensor, codes: Tensor, scale: np.ndarray) -> None:
    """Fill codes [P, C] int8 and scale [C] from pixels [P, C], block by block of pixels."""
    num, channels = pixels.shape
    block = max(1, BLOCK // channels) if pixels.device.type == "cpu" else num
    parts = pixels.split(block)
    peak = torch.stack([part.abs().amax(0) for part in parts]).amax(0).float()
    step = peak.div_(127).clamp_min_(1e-12)
    factor = 1 / step
    for part, out in zip(parts, codes.split(block), strict=True):
        out.copy_(torch.mul(part, factor).round_())
    scale[:] = step.cpu().numpy()


def decode(arrays: Mapping[str, np.ndarray], name: str) -> Tensor:
    """The float32 batch [N, ..., C] that `encode` stored under `name`."""
    values = torch.from_numpy(arrays[name]).float()
    if f"{name}.scale" in arrays:
        scale = torch.from_numpy(arrays[f"{name}.scale"])
        values = values.mul_(scale.view(len(scale), *[1] * (values.ndim - 2), -1))
    return values


def _stored_arrays(name: str, shape: tuple, stored: str, dims: tuple) -> list[Array]:
    """Channels are last, as the networks compute: nothing is transposed on the way to the disk."""
    arrays = [Array(name, shape, choose("feature dtype", stored, STORED), dims)]
    if stored == "int8":
        arrays.append(Array(f"{name}.scale", shape[-1:], "float32", dims[-1:]))
    return arrays


def plan_features(
    facts: dict, taps: Sequence[Tap], stored: str, label_size: int, splits: dict, per_shard: int
) -> Plan:
    """The store of native taps, with the images at label size beside them."""
    arrays = [Array("images", (3, label_size, label_size), "uint8", ("color", "y", "x"))]
    for tap in taps:
        shape = (tap.resolution, tap.resolution, tap.channels)
        arrays += _stored_arrays(tap.name, shape, stored, ("y", "x", "channel"))
    return Plan("features", facts | {"version": VERSION}, tuple(arrays), splits, per_shard)


def plan_pixels(facts: dict, channels: int, stored: str, splits: dict, per_shard: int) -> Plan:
    """The store of sampled hypercolumns, with each pixel's class, weight and place."""
    count = facts["pixels_per_sample"]
    arrays = [
        Array("classes", (count,), "uint8", ("pixel",)),
        Array("weights", (count,), "float32", ("pixel",)),
        Array("places", (count,), "int32", ("pixel",)),
        *_stored_arrays("columns", (count, channels), stored, ("pixel", "channel")),
    ]
    return Plan("pixels", facts | {"version": VERSION}, tuple(arrays), splits, per_shard)


@dataclass(frozen=True)
class Job:
    """One shard to make or to check, picklable for a worker process."""

    source: Source
    plan: Plan
    shard: Shard
    taps: tuple[Tap, ...]
    masks: str | None = None  # zarr group of masks; for pixels


Parts = Iterator[dict[str, np.ndarray]]  # samples in order, each part valid until the next one


def features_parts(job: Job, start: int, stop: int) -> Parts:
    """Synthesize samples [start, stop) and encode images and taps, a batch at a time.

    A tap is encoded as soon as it is made, while the caches hold it.
    """
    generator, arrays = job.source.generator(), job.plan.empty(job.source.batch_size)
    size = arrays["images"].shape[-1]
    for ws in _batches(job.source, job.shard.split, start, stop):
        part = {name: values[: len(ws)] for name, values in arrays.items()}
        with torch.inference_mode(), watch(generator, job.taps, partial(_put_map, part)):
            part["images"][:] = to_uint8(generator.synthesis(ws), size)
        yield part


def _put_map(arrays: Mapping[str, np.ndarray], name: str, x: Tensor) -> None:
    """Encode a batch of maps [N, C, H, W]."""
    _put(arrays, name, slice(None), x.permute(0, 2, 3, 1))


def pixels_parts(job: Job, start: int, stop: int) -> Parts:
    """Synthesize samples [start, stop), draw pixels by their masks, look hypercolumns up."""
    assert job.masks is not None, "pixels are drawn by masks"
    facts, arrays = job.plan.facts, job.plan.empty(stop - start)
    masks = Group(job.masks).read(job.shard.split, "masks", slice(start, stop))
    seeds = Group(job.source.latents).read(job.shard.split, "seeds", slice(start, stop))
    row = 0
    for features, _ in stream(job.source, job.shard.split, start, stop, job.taps):
        for i in range(len(features[job.taps[0].name])):
            mask, count = masks[row], facts["pixels_per_sample"]
            pixels = draw_pixels(mask, count, int(seeds[row]), facts["num_classes"])
            for name in ("classes", "weights", "places"):
                arrays[name][row] = getattr(pixels, name)
            sample = [features[tap.name][i] for tap in job.taps]
            columns = hypercolumns(sample, pixels.places, len(mask), facts["align_corners"])
            _put(arrays, "columns", slice(row, row + 1), columns[None])
            row += 1
    yield arrays


def _put(arrays: Mapping[str, np.ndarray], name: str, rows: slice, x: Tensor) -> None:
    """Encode a batch [N, ..., C] into some rows of an array and of its scale."""
    scale = arrays.get(f"{name}.scale")
    encode(x, arrays[name][rows], None if scale is None else scale[rows])


MAKERS: dict[str, Callable[[Job, int, int], Parts]] = {
    "features": features_parts,
    "pixels": pixels_parts,
}


def make_shard(job: Job) -> None:
    """Make and commit one shard."""
    parts = MAKERS[job.plan.kind](job, job.shard.start, job.shard.stop)
    Store(job.plan).write_parts(job.shard, parts)


def check_shard(job: Job) -> float:
    """Synthesize a shard's first sample again; the largest error relative to each array's range."""
    (fresh,) = MAKERS[job.plan.kind](job, job.shard.start, job.shard.start + 1)
    kept = Store(job.plan).read(job.shard.split, job.shard.start)
    worst = 0.0
    for array in job.plan.arrays:
        if array.name.endswith(".scale"):
            continue
        a, b = (decode(arrays, array.name) for arrays in (fresh, kept))
        worst = max(worst, float((a - b).abs().max() / b.abs().max().clamp_min(1e-6)))
    return worst


def fill(
    plan: Plan,
    source: Source,
    taps: Sequence[Tap],
    max_gib: float,
    num_workers: int = 0,
    masks: str | None = None,
) -> Store:
    """Make every missing shard of `plan`; check that what is there is what we would make now.

    InputError if the plan is too big, or if a kept shard differs from a fresh synthesis.
    """
    workers.keep_freed_memory()  # before the first map: what comes earlier splits the heap
    store = Store(plan)
    missing = store.missing() if (store.path / "zarr.json").exists() else plan.shards()
    kept = [s for s in plan.shards() if s not in missing]

    def jobs(shards: Sequence[Shard]) -> list[Job]:
        return [Job(source, plan, shard, tuple(taps), masks) for shard in shards]

    processes = workers.count(num_workers, source.device, len(missing) or len(kept))
    samples = sum(s.stop - s.start for s in missing)
    plan.check(max_gib, _seconds_a_sample(source, missing) * samples / processes, missing)
    with store.lock():
        store.create()
        missing = store.missing()  # another process may have made some meanwhile
        for _ in workers.run(make_shard, jobs(missing), f"caching {plan.kind}", processes):
            pass
        if kept:
            say(f"checking one sample of each of {len(kept)} kept shards")
            errors = list(workers.run(check_shard, jobs(kept), "checking", processes))
            if max(errors) > TOLERANCE:
                raise InputError(
                    f"a cached sample that differs from a fresh one by {max(errors):.1%}",
                    f"at most {TOLERANCE:.0%} (rounding)",
                    "the code gives other values now: raise VERSION in pipeline/data/features.py",
                )
    return store


def _seconds_a_sample(source: Source, missing: Sequence[Shard]) -> float:
    """Time one sample, after one to warm up; 0 if there is nothing to do."""
    import time

    if not missing:
        return 0.0
    generator, shard = source.generator(), missing[0]
    ws = source.ws(shard.split, shard.start, min(shard.start + source.batch_size, shard.stop))
    with torch.inference_mode():
        generator.synthesis(ws)
        start = time.perf_counter()
        generator.synthesis(ws)
    return (time.perf_counter() - start) / len(ws)
