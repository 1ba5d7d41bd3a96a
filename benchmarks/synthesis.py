"""CPU seconds a sample of the 1024 px generator, to each depth and in both dtypes."""

import time

import torch

from pipeline.generators.registry import load_generator
from pipeline.generators.taps import find
from pipeline.runtime.workers import keep_freed_memory

STOPS = ("32px_conv2", "64px_conv2", "128px_conv2", "256px_conv2", "512px_conv2", None)


def measure() -> dict:
    """Median CPU seconds of three one-thread passes, batch 1."""
    torch.set_num_threads(1)
    keep_freed_memory()
    result = {}
    for dtype in ("float32", "bfloat16"):
        generator = load_generator("data/checkpoints/ffhq.safetensors", dtype=dtype)
        ws = generator.mapping(torch.randn(1, generator.z_dim))
        for stop in STOPS:
            tap = None if stop is None else find(generator.taps, stop)
            seconds = []
            for _ in range(4):
                start = time.process_time()
                with torch.inference_mode():
                    generator.synthesis(ws, stop_at=tap)
                seconds.append(time.process_time() - start)
            result[f"{dtype} to {stop or 'image'}, s"] = round(sorted(seconds[1:])[1], 3)
    return result
