"""StyleGAN2 (Karras et al. 2020, arXiv:1912.04958) with skip connections, and its ADA form.

The modulation scales the maps before a convolution and the demodulation after it, so that a batch
shares one kernel; the textbook form makes a kernel per sample (`benchmarks/modulation.py`).
"""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.generators.contract import Generator
from pipeline.generators.layers import (
    EPSILON,
    Affine,
    Noise,
    conv_taps,
    count,
    fill,
    limited,
    map_to_w,
    mapping_layers,
    mapping_widths,
)
from pipeline.generators.taps import Style

FIR = (1.0, 3.0, 3.0, 1.0)  # low-pass filter of every upsampling, before its normalization


def upsampling_filter() -> Tensor:
    """The separable filter [1, 1, 4, 4] that keeps the mean when the pixels are spread by two."""
    row = torch.tensor(FIR) / 4
    return torch.outer(row, row)[None, None]


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, demodulation, noise, bias, LeakyReLU 0.2 times sqrt 2.

    The factor sqrt 2 lies in bias and noise strength (in the file) and in the demodulation (here).
    `up` doubles the resolution by a transposed convolution and a low-pass filter.
    """

    fir: Tensor

    def __init__(
        self,
        w_dim: int,
        channels_in: int,
        channels: int,
        resolution: int,  # of the output, px
        up: bool,
        clamp: float | None,  # largest magnitude of the output; None: any
    ):
        super().__init__()
        self.affine = Affine(w_dim, channels_in)
        # As the convolution takes it: reordering it would cost a tenth of the pass.
        shape = (channels_in, channels) if up else (channels, channels_in)
        self.weight = nn.Parameter(torch.zeros(*shape, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.noise = Noise(resolution)
        self.up, self.clamp = up, clamp
        self.register_buffer("fir", upsampling_filter(), persistent=False)

    def forward(self, x: Tensor, w: Tensor, noise_mode: str) -> Tensor:
        """[N, channels_in, H, W] and w [N, w_dim] to [N, channels, H or 2H, W or 2W]."""
        style = self.affine(w)
        # |kernel * style|^2 over inputs and taps, for each sample and output: [N, channels]
        energy = self.weight.square().sum((2, 3))
        power = style.flatten(1).square() @ (energy if self.up else energy.T)
        demodulation = math.sqrt(2) * (power + EPSILON).rsqrt()
        x = self.convolve(x * style)
        x = torch.addcmul(self.bias[:, None, None], x, demodulation[..., None, None])
        x = F.leaky_relu_(self.noise(x, noise_mode), 0.2)
        return x if self.clamp is None else x.clamp_(-self.clamp, self.clamp)

    def convolve(self, x: Tensor) -> Tensor:
        """The plain convolution, one kernel for all samples."""
        if not self.up:
            return F.conv2d(x, self.weight, padding=1)
        x = F.conv_transpose2d(x, self.weight, stride=2)
        return F.conv2d(x, self.fir.expand(x.shape[1], 1, 4, 4), padding=1, groups=x.shape[1])


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to colors, added to the upsampled colors of the block before."""

    fir: Tensor

    def __init__(self, w_dim: int, channels: int, clamp: float | None):
        super().__init__()
        self.affine = Affine(w_dim, channels)
        self.weight = nn.Parameter(torch.zeros(3, channels))
        self.bias = nn.Parameter(torch.zeros(3))
        self.clamp = clamp
        self.register_buffer("fir", upsampling_filter(), persistent=False)

    def forward(self, x: Tensor, w: Tensor, image: Tensor | None) -> Tensor:
        """[N, channels, H, W], w [N, w_dim] and colors [N, 3, H/2, W/2] to colors [N, 3, H, W]."""
        # The kernels, [N, 3, channels], are scaled instead of the map: they are smaller.
        kernels = self.weight * self.affine(w).flatten(1)[:, None]
        colors = x.permute(0, 2, 3, 1).flatten(1, 2) @ kernels.transpose(1, 2) + self.bias
        if self.clamp is not None:
            colors = colors.clamp(-self.clamp, self.clamp)
        colors = colors.transpose(1, 2).unflatten(2, x.shape[2:])
        if image is None:
            return colors
        fir = self.fir.expand(3, 1, 4, 4)
        return colors + F.conv_transpose2d(image, fir, stride=2, padding=1, groups=3)


class StyleGAN2(Generator):
    """A constant, one styled convolution at 4 px, then two a resolution; colors are summed up."""

    family = "stylegan2"

    def __init__(
        self,
        widths: Sequence[int],  # channels at 4, 8, 16 ... px
        mapping: Sequence[int],  # widths of the mapping network: z_dim, ..., w_dim
        conv_clamp: float | None = None,  # largest magnitude of any layer's output; None: any
    ):
        super().__init__()
        self.z_dim, self.w_dim = mapping[0], mapping[-1]
        self.num_ws = 2 * len(widths)
        self.resolution = 2 * 2 ** len(widths)
        self.mlp = mapping_layers(mapping)
        self.const = nn.Parameter(torch.zeros(1, widths[0], 4, 4))
        self.taps = conv_taps(widths, first=2)
        self.names = tuple(tap.name for tap in self.taps)
        before = (widths[0], *(tap.channels for tap in self.taps))
        self.layers = nn.ModuleList(
            StyledConv(self.w_dim, c, tap.channels, tap.resolution, i % 2 == 1, conv_clamp)
            for i, (c, tap) in enumerate(zip(before, self.taps, strict=False))
        )
        self.to_rgb = nn.ModuleList(ToRGB(self.w_dim, width, conv_clamp) for width in widths)
        self.register_buffer("w_avg", torch.zeros(self.w_dim))
        if conv_clamp is not None:
            self.register_buffer("conv_clamp", torch.tensor(conv_clamp))
        self.styles = tuple(self._styles())

    def _styles(self) -> Iterator[Style]:
        """One a modulated convolution, of its input; a resolution's colors after its last layer."""
        before, channels, px = None, self.const.shape[1], 4
        for index, tap in enumerate(self.taps):
            yield Style(f"{tap.name}_style", f"{tap.module}.affine", channels, px, before)
            before, channels, px = tap, tap.channels, tap.resolution
            if index % 2 == 0:
                at = f"to_rgb.{index // 2}.affine"
                yield Style(f"{px}px_to_rgb_style", at, channels, px, tap)

    @property
    def style_weights(self) -> dict[str, Tensor]:
        """{layer: affine weight [channels_in, w_dim]}, of the convolutions, without ToRGB."""
        weights = [self.get_parameter(f"layers.{i}.affine.weight") for i in range(len(self.names))]
        return {n: w.detach().float() for n, w in zip(self.names, weights, strict=True)}

    def style(self, z: Tensor) -> Tensor:
        """z [N, z_dim] to w [N, w_dim], untruncated."""
        return map_to_w(self.mlp, z)

    def draw(self, ws: Tensor, stop: str | None, noise_mode: str) -> Tensor | None:
        """ws [N, num_ws, w_dim]: row i is layer i's, and that of the ToRGB before layer i."""
        x, image = self.const.expand(len(ws), -1, -1, -1), None
        for index, (name, layer) in enumerate(zip(self.names, self.layers, strict=True)):
            x = layer(x, ws[:, index], noise_mode)
            if name == stop:
                return None
            if stop is None and index % 2 == 0:
                image = self.to_rgb[index // 2](x, ws[:, index + 1], image)
        return image


def build(tensors: dict[str, Tensor]) -> StyleGAN2:
    """Build the network from our own tensor names; widths and depth are read from the weights."""
    blocks = count(tensors, "to_rgb.", ".affine.weight")
    widths = [tensors[f"to_rgb.{i}.weight"].shape[1] for i in range(blocks)]
    clamp = float(tensors["conv_clamp"]) if "conv_clamp" in tensors else None
    return fill(StyleGAN2(limited(widths), mapping_widths(tensors), clamp), tensors)
