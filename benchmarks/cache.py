"""What caching costs on top of bare synthesis of the same taps and image."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import zarr

from pipeline.data import features, plans, stores
from pipeline.generators.registry import Generator
from pipeline.generators.taps import select
from pipeline.runtime.workers import keep_freed_memory

ROUNDS, PER_SHARD = 5, 8  # the first round warms up
LABEL_SIZE, FINEST_TAP = 256, 128  # px


def seconds(function: Callable, *arguments: object) -> tuple[float, object]:
    """CPU seconds of a call, and its result."""
    start = time.process_time()
    result = function(*arguments)
    return time.process_time() - start, result


def bare(source: features.Source, generator: Generator, shard: plans.Shard) -> None:
    """Synthesize a shard's images one by one, and record nothing."""
    for row in range(shard.start, shard.stop):
        with torch.inference_mode():
            generator.synthesis(source.ws(shard.split, row, row + 1))


def write_by_zarr(store: stores.Store, shard: plans.Shard, arrays: dict) -> None:
    """What `Store.write_parts` does, without the hash, by zarr's own sharding codec."""
    group = zarr.open_group(str(store.path / shard.split), mode="r+")
    for name, values in arrays.items():
        array = group[name]
        assert isinstance(array, zarr.Array)
        array = array.with_config({"write_empty_chunks": True})
        array[shard.start : shard.stop] = values


def gathered(job: features.Job) -> dict:
    """A whole shard's arrays, which caching itself never holds."""
    shard = job.shard
    arrays, done = job.plan.empty(shard.stop - shard.start), 0
    for part in features.features_parts(job, shard.start, shard.stop):
        rows = slice(done, done := done + len(part["images"]))
        for name, values in part.items():
            arrays[name][rows] = values
    return arrays


def measure() -> dict:
    """CPU seconds of cached shards over CPU seconds of bare passes, alternating, one thread."""
    torch.set_num_threads(1)
    keep_freed_memory()
    source = features.Source("data/checkpoints/ffhq.safetensors", "data/latents/ffhq.zarr.zip")
    generator = source.generator()
    taps = select(generator.taps, FINEST_TAP)
    splits = {"train": ROUNDS * PER_SHARD}
    plan = features.plan_features({}, taps, "int8", LABEL_SIZE, splits, PER_SHARD)
    spent = {"bare": 0.0, "cached": 0.0, "write": 0.0, "zarr": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        store, other = (stores.Store(plan, Path(folder) / name) for name in ("ours", "zarr"))
        store.create()
        other.create()
        for turn, shard in enumerate(plan.shards()):
            job = features.Job(source, plan, shard, taps)
            parts = features.features_parts(job, shard.start, shard.stop)
            took = {"bare": seconds(bare, source, generator, shard)[0]}
            took["cached"], _ = seconds(store.write_parts, shard, parts)
            arrays = gathered(job)
            took["write"], _ = seconds(store.write, shard, arrays)
            took["zarr"], _ = seconds(write_by_zarr, other, shard, arrays)
            for name in took if turn else ():
                spent[name] += took[name] / ((ROUNDS - 1) * PER_SHARD)
    return {
        "bare synthesis, CPU s a sample": round(spent["bare"], 3),
        "cached (synthesis, encoding, hash, write)": round(spent["cached"], 3),
        "of it hash and write": round(spent["write"], 4),
        "zarr's own write, without a hash": round(spent["zarr"], 4),
        "ratio": round(spent["cached"] / spent["bare"], 3),
    }
