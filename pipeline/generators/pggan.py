"""PGGAN (Karras et al. 2018, arXiv:1710.10196): convolutions, LeakyReLU, pixel norm; w = z."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.generators.contract import Generator
from pipeline.generators.layers import conv_taps, count, fill, limited, pixel_norm


class Dense(nn.Module):
    """z to the first map: a fully connected layer, reshaped to 4 x 4 px."""

    def __init__(self, z_dim: int, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 4, 4, z_dim))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, z: Tensor) -> Tensor:
        """[N, z_dim] to [N, channels, 4, 4]."""
        x = F.linear(pixel_norm(z), self.weight.flatten(0, 2)).unflatten(1, self.weight.shape[:3])
        return F.leaky_relu(x + self.bias[:, None, None], 0.2)


class Conv(nn.Module):
    """Pixel norm, 3x3 convolution, LeakyReLU 0.2; `up` doubles the resolution before.

    "Fused" is a transposed convolution by 4x4 instead: its kernel, [in, out, 4, 4], is the 3x3 one
    summed over four shifts.
    """

    def __init__(self, channels_in: int, channels: int, up: bool = False, fused: bool = False):
        super().__init__()
        shape = (channels_in, channels, 4, 4) if fused else (channels, channels_in, 3, 3)
        self.weight = nn.Parameter(torch.zeros(shape))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.up, self.fused = up, fused

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels_in, H, W] to [N, channels, H or 2H, W or 2W]."""
        x = pixel_norm(x)
        if self.fused:
            x = F.conv_transpose2d(x, self.weight, self.bias, stride=2, padding=1)
        else:
            x = F.interpolate(x, scale_factor=2, mode="nearest") if self.up else x
            x = F.conv2d(x, self.weight, self.bias, padding=1)
        return F.leaky_relu_(x, 0.2)


class PGGAN(Generator):
    """Two convolutions a resolution from 4 px up; the taps are their outputs before pixel norm."""

    family = "pggan"

    def __init__(
        self,
        widths: Sequence[int],  # channels at 4, 8, 16 ... px
        z_dim: int,
        fused: bool = False,  # upsample by transposed convolutions
    ):
        super().__init__()
        self.z_dim = self.w_dim = z_dim
        self.num_ws = 1
        self.resolution = 2 * 2 ** len(widths)
        self.taps = conv_taps(widths)
        self.names = tuple(tap.name for tap in self.taps)
        self.layers = nn.ModuleList([Dense(z_dim, widths[0])])
        for i, (before, tap) in enumerate(zip(self.taps, self.taps[1:], strict=False)):
            up = i % 2 == 1
            self.layers.append(Conv(before.channels, tap.channels, up, up and fused))
        self.to_rgb = nn.Conv2d(widths[-1], 3, 1)
        self.register_buffer("w_avg", torch.zeros(z_dim))

    @property
    def style_weights(self) -> dict[str, Tensor]:
        """{first layer: its matrix [channels 4 4, z_dim]}, rows = outputs."""
        weight = self.get_parameter("layers.0.weight")
        return {self.names[0]: weight.detach().float().flatten(0, 2)}

    def style(self, z: Tensor) -> Tensor:
        """The identity: PGGAN has no mapping network."""
        return z

    def draw(self, ws: Tensor, stop: str | None, noise_mode: str) -> Tensor | None:
        """ws [N, 1, z_dim], of which only the direction counts; there is no noise to switch off."""
        x = ws[:, 0]
        for name, layer in zip(self.names, self.layers, strict=True):
            x = layer(x)
            if name == stop:
                return None
        return self.to_rgb(pixel_norm(x))


def build(tensors: dict[str, Tensor]) -> PGGAN:
    """Build the network from our own tensor names; widths and fusing are read from the weights."""
    layers = count(tensors, "layers.", ".bias", 2)
    widths = limited([len(tensors[f"layers.{i}.bias"]) for i in range(1, layers, 2)])
    fused = layers > 2 and tensors["layers.2.weight"].shape[-1] == 4
    return fill(PGGAN(widths, tensors["layers.0.weight"].shape[-1], fused), tensors)
