"""What caching costs on top of bare synthesis of the same taps and image."""

import tempfile
import time
from pathlib import Path

import torch

from pipeline import features, stores
from pipeline.files import read_json
from pipeline.workers import keep_freed_memory

ROUNDS = 4


def measure() -> dict:
    """CPU seconds of cached shards over CPU seconds of bare passes, alternating, one thread."""
    torch.set_num_threads(1)
    keep_freed_memory()
    plan = stores.plan_of(read_json("data/features/ffhq.json"))
    source = features.Source("data/checkpoints/ffhq.safetensors", "data/latents/ffhq.zarr")
    generator = source.generator()
    stored = {array.name for array in plan.arrays}
    taps = tuple(tap for tap in generator.taps if tap.name in stored)
    bare, cached, samples = [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        store = stores.Store(plan, Path(folder))
        store.create()
        for shard in [s for s in plan.shards() if s.split == "train"][:ROUNDS]:
            job = features.Job(source, plan, shard, taps)
            start = time.process_time()
            for row in range(shard.start, shard.stop):
                with torch.inference_mode():
                    generator.synthesis(source.ws(shard.split, row, row + 1))
            bare.append(time.process_time() - start)
            start = time.process_time()
            store.write(shard, features.features_arrays(job, shard.start, shard.stop))
            cached.append(time.process_time() - start)
            samples += shard.stop - shard.start
    return {
        "bare synthesis, CPU s a sample": round(sum(bare) / samples, 3),
        "cached (synthesis, encoding, hash, write)": round(sum(cached) / samples, 3),
        "ratio": round(sum(cached) / sum(bare), 3),
    }
