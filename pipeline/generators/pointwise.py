"""1x1 convolutions as matrix products over the pixels of channels-last maps.

On one CPU thread `conv2d` takes another way: slower by a quarter, for few channels out twofold, and
with more passes over the maps to come back.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

HAS_ONEDNN = torch.backends.mkldnn.is_available()


def pointwise(
    x: Float[Tensor, "sample channel height width"],
    weight: Float[Tensor, "out channel"],
) -> Float[Tensor, "sample out height width"]:
    """A matrix on the channels of every pixel."""
    return to_map(product(to_pixels(x), weight), x.shape)


def to_pixels(
    x: Float[Tensor, "sample channel height width"],
) -> Float[Tensor, "pixel channel"]:
    """The pixels of a map, one after another: a view if it is channels-last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def to_map(
    pixels: Float[Tensor, "pixel channel"], shape: torch.Size
) -> Float[Tensor, "sample channel height width"]:
    """The channels-last map, of the samples, rows and columns of `shape`, that has these pixels."""
    num, _, height, width = shape
    return pixels.view(num, height, width, -1).permute(0, 3, 1, 2)


def product(
    pixels: Float[Tensor, "pixel channel"],
    weight: Float[Tensor, "out channel"],
    bias: Float[Tensor, " out"] | None = None,
) -> Float[Tensor, "pixel out"]:
    """pixels @ weight.T + bias, by oneDNN where that is the faster."""
    if pixels.device.type != "cpu" or pixels.dtype is not torch.float32 or not HAS_ONEDNN:
        return F.linear(pixels, weight, bias)
    return _Product.apply(pixels, weight, bias)


class _Product(torch.autograd.Function):
    """oneDNN's product, on one thread up to a fifth faster than that of `linear`.

    Backwards it is the slower one: it wants the weight transposed, and that copy alone costs more
    than a small map's product.
    """

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(pixels if ctx.needs_input_grad[1] else None, weight)
        return _onednn(pixels, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (pixels, weight), (of_pixels, of_weight, of_bias) = ctx.saved_tensors, ctx.needs_input_grad
        return (
            gradient @ weight if of_pixels else None,
            gradient.T @ pixels if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )


def _onednn(pixels: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(pixels, weight, bias, "none", [], "")
