"""CPU seconds of what directions cost before any sample is looked at: SeFa and the PCA of w."""

import time

import torch

from pipeline.editing.directions.method import factorize, layer_range, principal, spread_of_w
from pipeline.generators.registry import load_generator

SAMPLES = 20_000


def measure() -> dict:
    """SeFa of all layers (wanted: at most 2 s) and the exact covariance of many w."""
    torch.set_num_threads(1)
    result = {}
    for study in ("digiface", "ffhq"):
        generator = load_generator(f"data/checkpoints/{study}.safetensors")
        layers = layer_range(generator, "all").layers
        start = time.process_time()
        factorize([generator.style_weights[layer] for layer in layers])
        middle = time.process_time()
        principal(spread_of_w(generator, SAMPLES, 1.0, 0))
        end = time.process_time()
        result[f"{study}: SeFa of {len(layers)} layers, CPU s"] = round(middle - start, 3)
        result[f"{study}: PCA of {SAMPLES} w, CPU s"] = round(end - middle, 3)
    return result
