"""From ws to feature maps: streamed, cached as native taps, or sampled as hypercolumns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from pipeline import workers
from pipeline.arrays import Group
from pipeline.errors import InputError, choose
from pipeline.generators import Generator, load_generator
from pipeline.images import to_uint8
from pipeline.pixels import draw_pixels, hypercolumns
from pipeline.progress import say
from pipeline.stores import Array, Plan, Shard, Store
from pipeline.taps import Tap, find, record

VERSION = 1  # raise it when the same parameters should give other values
STORED = ("float16", "int8")
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
    for first in range(start, stop, source.batch_size):
        ws = source.ws(split, first, min(first + source.batch_size, stop))
        with torch.inference_mode(), record(generator, taps) as features:
            drawn = generator.synthesis(ws, stop_at=None if images else last)
        yield features, drawn


def encode(x: Tensor, stored: str, channel_axis: int) -> dict[str, np.ndarray]:
    """A batch as stored arrays: float16, or int8 with one scale per sample and channel.

    The scale is the largest magnitude / 127, so nothing is ever clipped.
    """
    if stored == "float16":
        return {"": x.to(torch.float16).cpu().contiguous().numpy()}
    axes = [axis for axis in range(1, x.ndim) if axis != channel_axis]
    scale = x.abs().amax(axes, keepdim=True).float().div(127).clamp_min(1e-12)
    if x.device.type == "cpu" and x.ndim == 4 and channel_axis == 1:
        codes = torch.empty(x.shape, dtype=torch.int8)
        for sample, out, factor in zip(x, codes, 1 / scale.flatten(1), strict=True):
            _round_map(sample, factor, out)
    else:
        codes = torch.mul(x, 1 / scale).round_().to(torch.int8).cpu().contiguous()
    return {"": codes.numpy(), ".scale": scale.flatten(1).cpu().numpy()}


def _round_map(x: Tensor, factor: Tensor, out: Tensor, rows: int = 128) -> None:
    """Write round(x * factor) to out [C, H, W] int8, for a channels-last map x [C, H, W].

    In blocks of pixels that stay in the cache while they are scaled, rounded and transposed:
    2.5 times as fast as four passes over the whole map.
    """
    pixels = x.permute(1, 2, 0).flatten(0, 1)
    codes = out.flatten(1)
    for start in range(0, len(pixels), rows):
        block = torch.mul(pixels[start : start + rows].float(), factor).round_().to(torch.int8)
        codes[:, start : start + rows] = block.T


def decode(arrays: Mapping[str, np.ndarray], name: str, channel_axis: int) -> Tensor:
    """The float32 batch that `encode` stored under `name`."""
    values = torch.from_numpy(arrays[name]).float()
    if f"{name}.scale" in arrays:
        shape = [len(values)] + [1] * (values.ndim - 1)
        shape[channel_axis] = -1
        values = values.mul_(torch.from_numpy(arrays[f"{name}.scale"]).reshape(shape))
    return values


def _stored_arrays(name: str, shape: tuple, stored: str, dims: tuple, channels: int) -> list[Array]:
    arrays = [Array(name, shape, choose("feature dtype", stored, STORED), dims)]
    if stored == "int8":
        arrays.append(Array(f"{name}.scale", (channels,), "float32", ("channel",)))
    return arrays


def plan_features(
    facts: dict, taps: Sequence[Tap], stored: str, label_size: int, splits: dict, per_shard: int
) -> Plan:
    """The store of native taps, with the images at label size beside them."""
    arrays = [Array("images", (3, label_size, label_size), "uint8", ("color", "y", "x"))]
    for tap in taps:
        shape = (tap.channels, tap.resolution, tap.resolution)
        arrays += _stored_arrays(tap.name, shape, stored, ("channel", "y", "x"), tap.channels)
    return Plan("features", facts | {"version": VERSION}, tuple(arrays), splits, per_shard)


def plan_pixels(facts: dict, channels: int, stored: str, splits: dict, per_shard: int) -> Plan:
    """The store of sampled hypercolumns, with each pixel's class, weight and place."""
    count = facts["pixels_per_sample"]
    arrays = [
        Array("classes", (count,), "uint8", ("pixel",)),
        Array("weights", (count,), "float32", ("pixel",)),
        Array("places", (count,), "int32", ("pixel",)),
        *_stored_arrays("columns", (count, channels), stored, ("pixel", "channel"), channels),
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


def features_arrays(job: Job, start: int, stop: int) -> dict[str, np.ndarray]:
    """Synthesize samples [start, stop) and encode images and taps."""
    size = job.plan.arrays[0].shape[-1]
    parts: dict[str, list[np.ndarray]] = {array.name: [] for array in job.plan.arrays}
    for features, images in stream(job.source, job.shard.split, start, stop, job.taps, images=True):
        parts["images"].append(to_uint8(images, size))
        for tap in job.taps:
            stored = "int8" if f"{tap.name}.scale" in parts else "float16"
            for suffix, values in encode(features[tap.name], stored, 1).items():
                parts[tap.name + suffix].append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}


def pixels_arrays(job: Job, start: int, stop: int) -> dict[str, np.ndarray]:
    """Synthesize samples [start, stop), draw pixels by their masks, look hypercolumns up."""
    facts = job.plan.facts
    masks = Group(job.masks).read(job.shard.split, "masks", slice(start, stop))
    seeds = Group(job.source.latents).read(job.shard.split, "seeds", slice(start, stop))
    drawn = [
        draw_pixels(mask, facts["pixels_per_sample"], int(seed), facts["num_classes"])
        for mask, seed in zip(masks, seeds, strict=True)
    ]
    parts: dict[str, list[np.ndarray]] = {array.name: [] for array in job.plan.arrays}
    stored = "int8" if "columns.scale" in parts else "float16"
    done = 0
    for features, _ in stream(job.source, job.shard.split, start, stop, job.taps):
        num = len(features[job.taps[0].name])
        for i, pixels in enumerate(drawn[done : done + num]):
            sample = [features[tap.name][i] for tap in job.taps]
            size = masks.shape[-1]
            columns = hypercolumns(sample, pixels.places, size, facts["align_corners"])
            for suffix, values in encode(columns[None], stored, 2).items():
                parts["columns" + suffix].append(values)
            for name in ("classes", "weights", "places"):
                parts[name].append(getattr(pixels, name)[None])
        done += num
    return {name: np.concatenate(values) for name, values in parts.items()}


MAKERS = {"features": features_arrays, "pixels": pixels_arrays}


def make_shard(job: Job) -> None:
    """Make and commit one shard."""
    arrays = MAKERS[job.plan.kind](job, job.shard.start, job.shard.stop)
    Store(job.plan).write(job.shard, arrays)


def check_shard(job: Job) -> float:
    """Synthesize a shard's first sample again; the largest error relative to each array's range."""
    fresh = MAKERS[job.plan.kind](job, job.shard.start, job.shard.start + 1)
    kept = Store(job.plan).read(job.shard.split, job.shard.start)
    worst = 0.0
    for array in job.plan.arrays:
        if array.name.endswith(".scale"):
            continue
        axis = 2 if array.name == "columns" else 1
        a, b = (decode(arrays, array.name, axis) for arrays in (fresh, kept))
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
                    "the code computes something else now: raise VERSION in pipeline/features.py",
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


def taps_of(generator: Generator, names: Sequence[str]) -> tuple[Tap, ...]:
    """The generator's taps called `names`, in forward order."""
    found = {find(generator.taps, name) for name in names}
    return tuple(tap for tap in generator.taps if tap in found)
