"""StyleGAN (Karras et al. 2019, arXiv:1812.04948): instance norm and style after convolutions."""

from collections.abc import Mapping, Sequence

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

FUSED_FROM = 128  # px from which published networks upsample by a transposed convolution


class Styled(nn.Module):
    """Noise, bias, LeakyReLU 0.2, instance norm, then x (s0 + 1) + s1 with the style s = A(w)."""

    def __init__(self, w_dim: int, channels: int, resolution: int):
        super().__init__()
        self.affine = Affine(w_dim, 2 * channels)
        self.noise = Noise(resolution, channels)
        self.bias = nn.Parameter(torch.zeros(channels))

    def finish(self, x: Tensor, w: Tensor, noise_mode: str) -> Tensor:
        """[N, C, H, W], which is changed, and w [N, w_dim] to [N, C, H, W]."""
        x = self.noise(x, noise_mode).add_(self.bias[:, None, None])
        x = F.leaky_relu_(x, 0.2)
        scale, shift = self.affine(w).chunk(2, 1)
        # The norm and the style in one pass: x a + b with a = (s0 + 1) / sd, b = s1 - mean a.
        variance, mean = torch.var_mean(x.float(), (2, 3), correction=0, keepdim=True)
        factor = (scale + 1).float() * (variance + EPSILON).rsqrt()
        offset = shift.float() - mean * factor
        return torch.addcmul(offset.to(x.dtype), x, factor.to(x.dtype))


class Constant(Styled):
    """The learned constant at 4 px, styled."""

    def __init__(self, w_dim: int, channels: int):
        super().__init__(w_dim, channels, 4)
        self.const = nn.Parameter(torch.zeros(1, channels, 4, 4))

    def forward(self, x: None, w: Tensor, noise_mode: str) -> Tensor:
        """w [N, w_dim] to [N, C, 4, 4]; there is no x."""
        start = self.const.repeat(len(w), 1, 1, 1).contiguous(memory_format=torch.channels_last)
        return self.finish(start, w, noise_mode)


class Conv(Styled):
    """A 3x3 convolution, styled."""

    def __init__(self, w_dim: int, channels_in: int, channels: int, resolution: int):
        super().__init__(w_dim, channels, resolution)
        self.weight = nn.Parameter(torch.zeros(channels, channels_in, 3, 3))

    def forward(self, x: Tensor, w: Tensor, noise_mode: str) -> Tensor:
        """[N, channels_in, H, W] and w [N, w_dim] to [N, channels, H, W]."""
        return self.finish(F.conv2d(x, self.weight, padding=1), w, noise_mode)


class UpConv(Styled):
    """Doubles the resolution, blurs by [1, 2, 1], styled.

    Up to 64 px pixels are repeated and convolved by 3x3; from 128 px on a transposed convolution
    by 4x4 does both ("fused"): its kernel, [in, out, 4, 4], is a 3x3 one summed over four shifts.
    """

    blur: Tensor

    def __init__(self, w_dim: int, channels_in: int, channels: int, resolution: int, fused: bool):
        super().__init__(w_dim, channels, resolution)
        shape = (channels_in, channels, 4, 4) if fused else (channels, channels_in, 3, 3)
        self.weight = nn.Parameter(torch.zeros(shape))
        self.fused = fused
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("blur", torch.outer(row, row)[None, None], persistent=False)

    def forward(self, x: Tensor, w: Tensor, noise_mode: str) -> Tensor:
        """[N, channels_in, H, W] and w [N, w_dim] to [N, channels, 2H, 2W]."""
        if self.fused:
            x = F.conv_transpose2d(x, self.weight, stride=2, padding=1)
        else:
            x = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), self.weight, padding=1)
        x = F.conv2d(x, self.blur.expand(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1])
        return self.finish(x, w, noise_mode)


class StyleGAN(Generator):
    """A styled constant and a convolution at 4 px, then two convolutions a resolution."""

    family = "stylegan"

    def __init__(
        self,
        widths: Sequence[int],  # channels at 4, 8, 16 ... px
        mapping: Sequence[int],  # widths of the mapping network: z_dim, ..., w_dim
        fused_from: int = FUSED_FROM,  # px
    ):
        super().__init__()
        self.z_dim, self.w_dim = mapping[0], mapping[-1]
        self.num_ws = 2 * len(widths)
        self.resolution = 2 * 2 ** len(widths)
        self.mlp = mapping_layers(mapping)
        self.taps = conv_taps(widths)
        self.names = tuple(tap.name for tap in self.taps)
        self.layers = nn.ModuleList([Constant(self.w_dim, widths[0])])
        for i, (before, tap) in enumerate(zip(self.taps, self.taps[1:], strict=False)):
            sizes = (self.w_dim, before.channels, tap.channels, tap.resolution)
            fused = tap.resolution >= fused_from
            self.layers.append(UpConv(*sizes, fused) if i % 2 else Conv(*sizes))
        self.to_rgb = nn.Conv2d(widths[-1], 3, 1)
        self.register_buffer("w_avg", torch.zeros(self.w_dim))
        self.styles = tuple(
            Style(f"{tap.name}_style", f"{tap.module}.affine", tap.channels, tap.resolution, tap)
            for tap in self.taps
        )

    def scaled_map(
        self, style: Style, features: Mapping[str, Tensor], scales: Mapping[str, Tensor]
    ) -> Tensor:
        """The instance norm's output: the tap with its style undone, zeros where s0 + 1 = 0.

        Its channels have zero mean and unit variance in each image, so both normalizations of
        contributions agree; those of the tap itself would not, over a data set.
        """
        scale, shift = scales[style.name].chunk(2, 1)
        factor = (scale + 1).float()
        normed = (super().scaled_map(style, features, scales).float() - shift) / factor
        return torch.where(factor == 0, 0.0, normed)

    @property
    def style_weights(self) -> dict[str, Tensor]:
        """{layer: affine weight [2 channels, w_dim]}: the scales' rows, then the shifts'."""
        weights = [self.get_parameter(f"layers.{i}.affine.weight") for i in range(len(self.names))]
        return {n: w.detach().float() for n, w in zip(self.names, weights, strict=True)}

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that synthesis computes in."""
        return self.to_rgb.weight.dtype

    def style(self, z: Tensor) -> Tensor:
        """z [N, z_dim] to w [N, w_dim], untruncated."""
        return map_to_w(self.mlp, z)

    def draw(self, ws: Tensor, stop: str | None, noise_mode: str) -> Tensor | None:
        """ws [N, num_ws, w_dim], one row a layer, to images."""
        x = None
        for name, layer, w in zip(self.names, self.layers, ws.unbind(1), strict=True):
            x = layer(x, w, noise_mode)
            if name == stop:
                return None
        return self.to_rgb(x)


def build(tensors: dict[str, Tensor]) -> StyleGAN:
    """Build the network from our own tensor names; widths and fusing are read from the weights."""
    layers = count(tensors, "layers.", ".affine.weight", 2)
    widths = limited([len(tensors[f"layers.{i}.bias"]) for i in range(1, layers, 2)])
    kernels = {4 * 2**i: tensors[f"layers.{2 * i}.weight"] for i in range(1, len(widths))}
    fused = [resolution for resolution, kernel in kernels.items() if kernel.shape[-1] == 4]
    network = StyleGAN(widths, mapping_widths(tensors), min(fused, default=FUSED_FROM * 16))
    return fill(network, tensors)
