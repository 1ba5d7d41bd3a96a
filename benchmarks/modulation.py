"""StyleGAN2 at 256 px and full width, ours against the textbook form, on one thread.

The textbook form makes a kernel per sample, scaled and demodulated, and convolves the batch in
groups (NVLabs' and rosinality's default). Weights are random: speed does not depend on them.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.generators.layers import EPSILON
from pipeline.generators.stylegan2 import StyledConv, StyleGAN2, ToRGB
from pipeline.runtime.devices import channels_last
from pipeline.runtime.progress import say
from pipeline.runtime.workers import keep_freed_memory

WIDTHS = (512, 512, 512, 512, 512, 256, 128)  # 4 to 256 px
MAPPING = (512,) * 9
STOPS = ("64px_conv2", "128px_conv2", None)
REPEATS = 5


def kernels_per_sample(layer: StyledConv, x: Tensor, w: Tensor, noise_mode: str) -> Tensor:
    """StyledConv.forward, the textbook way."""
    kernel = layer.weight.transpose(0, 1) if layer.up else layer.weight
    kernels = kernel * layer.affine(w)[:, None]
    kernels = kernels * (kernels.square().sum((2, 3, 4), keepdim=True) + EPSILON).rsqrt()
    num, channels, channels_in = kernels.shape[:3]
    x = x.reshape(1, num * channels_in, *x.shape[2:])
    if layer.up:
        kernels = kernels.transpose(1, 2).flatten(0, 1)
        x = F.conv_transpose2d(x, kernels, stride=2, groups=num)
        fir = layer.fir.expand(num * channels, 1, 4, 4)
        x = F.conv2d(x, fir, padding=1, groups=num * channels)
    else:
        x = F.conv2d(x, kernels.flatten(0, 1), padding=1, groups=num)
    x = x.view(num, channels, *x.shape[2:]) * math.sqrt(2) + layer.bias[:, None, None]
    return F.leaky_relu_(layer.noise(x, noise_mode), 0.2)


def kernels_to_rgb(layer: ToRGB, x: Tensor, w: Tensor, image: Tensor | None) -> Tensor:
    """ToRGB.forward, the textbook way."""
    kernels = layer.weight * layer.affine(w).flatten(1)[:, None]
    num = len(kernels)
    flat = x.reshape(1, -1, *x.shape[2:])
    colors = F.conv2d(flat, kernels.flatten(0, 1)[..., None, None], groups=num)
    colors = colors.view(num, 3, *x.shape[2:]) + layer.bias[:, None, None]
    if image is None:
        return colors
    return colors + F.conv_transpose2d(
        image, layer.fir.expand(3, 1, 4, 4), stride=2, padding=1, groups=3
    )


def network() -> StyleGAN2:
    """Random weights of a trained network's scale."""
    torch.manual_seed(0)
    made = StyleGAN2(WIDTHS, MAPPING).eval().requires_grad_(False)
    for name, value in made.named_parameters():
        if value.ndim > 1 and not name.startswith("mlp"):
            value.normal_(std=1 / math.sqrt(value[0].numel()))
    return made


def seconds(made: StyleGAN2, ws: Tensor, stop: str | None) -> float:
    """CPU seconds of a pass."""
    start = time.process_time()
    with torch.inference_mode():
        made.synthesis(ws, stop_at=stop)
    return time.process_time() - start


def agreement(ours: StyleGAN2, textbook: StyleGAN2, ws: Tensor) -> float:
    """Largest difference of the images, relative to the largest value."""
    with torch.inference_mode():
        image = ours.synthesis(ws)
        with textbook_form():
            other = textbook.synthesis(ws)
    return float((image - other).abs().max() / other.abs().max())


@contextmanager
def textbook_form() -> Iterator[None]:
    """A context in which StyleGAN2's layers compute the textbook way."""
    with (
        patch.object(StyledConv, "forward", kernels_per_sample),
        patch.object(ToRGB, "forward", kernels_to_rgb),
    ):
        yield


def measure() -> dict:
    """Median CPU seconds a sample, the two taking turns, and the median of the turns' ratios."""
    torch.set_num_threads(1)
    keep_freed_memory()
    textbook = network()
    ours = channels_last(network())  # as load_generator makes it
    result: dict = {}
    for num in (1, 4):
        ws = ours.mapping(torch.randn(num, 512, generator=torch.Generator().manual_seed(num)))
        result[f"batch {num}: largest difference of images"] = agreement(ours, textbook, ws)
        for stop in STOPS:
            turns = []
            for turn in range(REPEATS + 1):
                own = seconds(ours, ws, stop)
                with textbook_form():
                    other = seconds(textbook, ws, stop)
                if turn:  # the first one warms up
                    turns.append((own / num, other / num))
            what = f"batch {num}, to {stop or 'the image'}"
            result[f"{what}, s"] = round(median(own for own, _ in turns), 3)
            result[f"{what}, textbook, s"] = round(median(other for _, other in turns), 3)
            result[f"{what}, ratio"] = round(median(own / other for own, other in turns), 3)
            say(f"{what}: {result[f'{what}, ratio']} of the textbook form's time")
    return result
