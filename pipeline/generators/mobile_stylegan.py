"""MobileStyleGAN (Belousov 2021, arXiv:2104.04767), a student of StyleGAN2 with wavelet upsampling.

The published network is exported with its demodulation folded into constant pointwise weights.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.generators.contract import Generator
from pipeline.generators.pointwise import product, to_map, to_pixels
from pipeline.generators.taps import Style, Tap
from pipeline.runtime.errors import InputError


def inverse_haar(x: Tensor) -> Tensor:
    """One level of inverse Haar transform, times 2: [N, 4c, H, W] to [N, c, 2H, 2W].

    The first c channels are the low band L; channel c + 3i + k is detail k of channel i, with k = 0
    vertical V, 1 horizontal U, 2 diagonal D. out[2h+p, 2w+q] = L + s_p V + s_q (U + s_p D), with
    s_0 = 1 and s_1 = -1; the transform's factor 1/2 is left to the caller, who scales x anyway.
    """
    return _InverseHaar.apply(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _InverseHaar(torch.autograd.Function):
    """[N, H, W, 4c] to [N, 2H, 2W, c] and, backwards, its transpose; each value is written once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        num, height, width, channels = x.shape
        out = x.new_empty(num, 2 * height, 2 * width, channels // 4)
        low, vertical, horizontal, diagonal = _bands(x)
        rows = (low + vertical, horizontal + diagonal), (low - vertical, horizontal - diagonal)
        for p, (even, odd) in enumerate(rows):
            torch.add(even, odd, out=out[:, p::2, 0::2])
            torch.sub(even, odd, out=out[:, p::2, 1::2])
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        num, height, width, channels = gradient.shape
        out = gradient.new_empty(num, height // 2, width // 2, 4 * channels)
        low, vertical, horizontal, diagonal = _bands(out)
        (a, b), (c, d) = ([gradient[:, p::2, q::2] for q in (0, 1)] for p in (0, 1))
        top, bottom = a + b, c + d
        torch.add(top, bottom, out=low)
        torch.sub(top, bottom, out=vertical)
        top, bottom = a - b, c - d
        torch.add(top, bottom, out=horizontal)
        torch.sub(top, bottom, out=diagonal)
        return out


def _bands(x: Tensor) -> tuple[Tensor, ...]:
    """The bands L, V, U, D of [N, H, W, 4c], each [N, H, W, c]."""
    c = x.shape[-1] // 4
    return x[..., :c], *x[..., c:].unflatten(-1, (c, 3)).unbind(-1)


class Modulation(nn.Module):
    """w to a scale per channel: the affine map A(w), times a constant."""

    gain: Tensor

    def __init__(self, w_dim: int, channels: int):
        super().__init__()
        self.affine = nn.Linear(w_dim, channels)
        self.register_buffer("gain", torch.ones(()))

    def forward(self, w: Tensor) -> Tensor:
        """[N, w_dim] to [N, channels, 1, 1]."""
        return (self.affine(w) * self.gain.to(w.dtype))[..., None, None]


class StyledConv(nn.Module):
    """Modulated convolution (dense, or depthwise then pointwise), noise, bias, LeakyReLU 0.2."""

    noise: Tensor

    def __init__(self, w_dim: int, channels_in: int, channels: int, resolution: int, dense: bool):
        super().__init__()
        self.modulation = Modulation(w_dim, channels_in)
        if dense:
            self.depthwise, self.conv = None, nn.Conv2d(channels_in, channels, 3, padding=1)
        else:
            self.depthwise = nn.Conv2d(
                channels_in, channels_in, 3, padding=1, groups=channels_in, bias=False
            )
            self.conv = nn.Conv2d(channels_in, channels, 1)
        self.register_buffer("noise", torch.zeros(1, 1, resolution, resolution))

    def forward(self, x: Tensor, style: Tensor | None, noise_mode: str) -> Tensor:
        """[N, channels_in, H, W], scaled by style [N, channels_in, 1, 1], to [N, channels, H, W].

        style is None if x is scaled already. A depthwise convolution commutes with the scale, so
        for a single sample its small kernel is scaled instead of the large map.
        """
        kernel = None if self.depthwise is None else self.depthwise.weight
        if style is not None and kernel is not None and len(x) == 1:
            kernel = kernel * style.view(-1, 1, 1, 1)
        elif style is not None:
            x = x * style
        if kernel is None:
            shape, pixels = x.shape, to_pixels(self.conv(x))
        else:
            x = F.conv2d(x, kernel, padding=1, groups=len(kernel))
            weight, bias = self.conv.weight[..., 0, 0], self.conv.bias
            shape, pixels = x.shape, product(to_pixels(x), weight, bias)
        if noise_mode == "const":
            noise = self.noise.to(x.dtype).flatten().repeat(len(x))
            pixels = pixels.add_(noise[:, None])
        elif noise_mode == "random":  # the file holds strength times unit noise
            strength = self.noise.square().mean().sqrt().to(x.dtype)
            pixels = pixels.add_(torch.randn_like(pixels[:, :1]) * strength)
        return to_map(F.leaky_relu_(pixels, 0.2), shape)


class Block(nn.Module):
    """Doubles the resolution by an inverse wavelet, then two depthwise-separable convolutions."""

    def __init__(self, w_dim: int, channels_in: int, channels: int, resolution: int):
        super().__init__()
        self.up = Modulation(w_dim, channels_in)
        self.conv1 = StyledConv(w_dim, channels_in // 4, channels, resolution, dense=False)
        self.conv2 = StyledConv(w_dim, channels, channels, resolution, dense=False)

    def upsample(self, x: Tensor, w_up: Tensor, w_conv1: Tensor) -> Tensor:
        """Scale by both modulations at the low resolution, where they meet in one product."""
        scale = self.modulations(w_up, w_conv1)
        return inverse_haar(x * scale)

    def modulations(self, w_up: Tensor, w_conv1: Tensor) -> Tensor:
        """The scale of `up` times that of conv1, for each channel's four bands, with Haar's 1/2."""
        style = self.conv1.modulation(w_conv1) / 2
        return self.up(w_up) * torch.cat([style, style.repeat_interleave(3, 1)], 1)


class MobileStyleGAN(Generator):
    """A constant, one dense styled convolution, then blocks up to half the image's resolution."""

    family = "mobile_stylegan"

    def __init__(self, widths: tuple[int, ...], z_dim: int = 512, w_dim: int = 512, depth: int = 8):
        super().__init__()
        self.z_dim, self.w_dim = z_dim, w_dim
        self.num_ws = 3 * (len(widths) - 1) + 2
        self.resolution = 4 * 2 ** len(widths)
        self.mlp = nn.ModuleList(nn.Linear(w_dim if i else z_dim, w_dim) for i in range(depth))
        self.const = nn.Parameter(torch.zeros(1, widths[0], 4, 4))
        self.conv = StyledConv(w_dim, widths[0], widths[0], 4, dense=True)
        self.layers = nn.ModuleList(
            Block(w_dim, i, o, 8 * 2**level)
            for level, (i, o) in enumerate(zip(widths[:-1], widths[1:], strict=True))
        )
        self.to_img_modulation = Modulation(w_dim, widths[-1])
        self.to_img = nn.Conv2d(widths[-1], 12, 1)
        self.register_buffer("w_avg", torch.zeros(w_dim))
        self.taps = (
            Tap("4px", "conv", widths[0], 4),
            *(
                Tap(f"{8 * 2**level}px_conv{k}", f"layers.{level}.conv{k}", width, 8 * 2**level)
                for level, width in enumerate(widths[1:])
                for k in (1, 2)
            ),
        )
        self.styles = tuple(self._styles(widths))

    def _styles(self, widths: tuple[int, ...]) -> Iterator[Style]:
        """One a row of ws, in the rows' order."""
        yield Style("4px_style", "conv.modulation", widths[0], 4, None)
        for level, (i, o) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            before, conv1 = self.taps[2 * level : 2 * level + 2]
            px, at = conv1.resolution, f"layers.{level}"
            yield Style(f"{px}px_up_style", f"{at}.up", i, px // 2, before)
            yield Style(f"{px}px_conv1_style", f"{at}.conv1.modulation", i // 4, px, before)
            yield Style(f"{px}px_conv2_style", f"{at}.conv2.modulation", o, px, conv1)
        last = self.taps[-1]
        yield Style("to_img_style", "to_img_modulation", widths[-1], last.resolution, last)

    def scaled_map(
        self, style: Style, features: Mapping[str, Tensor], scales: Mapping[str, Tensor]
    ) -> Tensor:
        """The const, a tap, or the upsampled map, which `draw` scales before it upsamples."""
        scaled = super().scaled_map(style, features, scales)
        if "conv1" in style.name:
            return inverse_haar(scaled * scales[style.name.replace("conv1", "up")] / 2)
        return scaled

    @property
    def style_weights(self) -> dict[str, Tensor]:
        """The affine map of every modulation but to_img's, in the order of the rows of ws."""
        return {
            name.removesuffix(".modulation"): part.affine.weight.float()
            for name, part in self.named_modules()
            if isinstance(part, Modulation) and part is not self.to_img_modulation
        }

    def style(self, z: Tensor) -> Tensor:
        """Pixel norm, then fully connected layers with LeakyReLU 0.2 times sqrt 2."""
        x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.mlp:
            x = F.leaky_relu(layer(x), 0.2) * math.sqrt(2)
        return x

    def draw(self, ws: Tensor, stop: str | None, noise_mode: str) -> Tensor | None:
        """ws [N, num_ws, w_dim]; rows: conv, then up, conv1, conv2 of each block, then to_img."""
        w = iter(ws.unbind(1))
        names = iter(tap.name for tap in self.taps)
        x = self.const * self.conv.modulation(next(w))
        x = self.conv(x.contiguous(memory_format=torch.channels_last), None, noise_mode)
        if next(names) == stop:
            return None
        for block in self.layers:
            assert isinstance(block, Block)
            x = block.conv1(block.upsample(x, next(w), next(w)), None, noise_mode)
            if next(names) == stop:
                return None
            x = block.conv2(x, block.conv2.modulation(next(w)), noise_mode)
            if next(names) == stop:
                return None
        style = self.to_img_modulation(next(w))
        if len(x) == 1:  # as in StyledConv: scale the small kernel, not the large map
            wavelets = F.conv2d(x, self.to_img.weight * style.view(1, -1, 1, 1), self.to_img.bias)
        else:
            wavelets = self.to_img(x * style)
        return inverse_haar(wavelets / 2)


def build(tensors: dict[str, Tensor]) -> MobileStyleGAN:
    """Build the network from our own tensor names; widths and depth are read from the weights."""
    blocks = sum(name.endswith("conv1.conv.weight") for name in tensors)
    widths = [tensors["const"].shape[1]]
    widths += [tensors[f"layers.{i}.conv2.conv.weight"].shape[0] for i in range(blocks)]
    depth = sum(name.startswith("mlp.") and name.endswith(".weight") for name in tensors)
    w_dim, z_dim = tensors["mlp.0.weight"].shape
    network = MobileStyleGAN(tuple(widths), z_dim, w_dim, depth)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(
            f"tensors that do not fit ({error})", "a MobileStyleGAN", "fetch the checkpoint again"
        ) from error
    return network
