"""What the StyleGAN and PGGAN families share.

Constant factors of the published networks (equalized learning rates, gains of activations) lie in
the weights: see pipeline/generators/translations.py.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.generators.contract import Generator
from pipeline.generators.taps import Tap
from pipeline.runtime.errors import InputError

EPSILON = 1e-8  # of every normalization, in all these families
Network = TypeVar("Network", bound=Generator)

MAX_BLOCKS = 9  # 1024 px
MAX_WIDTH = 2048  # channels; a file may claim more than it holds


def pixel_norm(x: Tensor) -> Tensor:
    """Divide each pixel's vector (axis 1) by its root mean square."""
    return x * (x.square().mean(1, keepdim=True) + EPSILON).rsqrt()


def mapping_layers(widths: Sequence[int]) -> nn.ModuleList:
    """Fully connected layers of a mapping network, from z's width to w's."""
    return nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))


def map_to_w(layers: nn.ModuleList, z: Float[Tensor, "sample z_dim"]) -> Tensor:
    """z to w [N, w_dim]: pixel norm, then each layer with LeakyReLU 0.2."""
    x = pixel_norm(z)
    for layer in layers:
        x = F.leaky_relu_(layer(x), 0.2)
    return x


class Affine(nn.Linear):
    """w to a style A(w), a value or two of which each channel of a map gets."""

    def forward(self, w: Tensor) -> Tensor:
        """[N, w_dim] to [N, out_features, 1, 1]."""
        return super().forward(w)[..., None, None]


class Noise(nn.Module):
    """Adds a map of unit noise times a strength: one strength in all, or one a channel."""

    map: Tensor

    def __init__(self, resolution: int, channels: int = 1):
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(channels))
        self.register_buffer("map", torch.zeros(1, 1, resolution, resolution))

    def forward(self, x: Tensor, mode: str) -> Tensor:
        """[N, C, H, W], which is changed; mode is const (the checkpoint's map), random or none."""
        if mode == "none":
            return x
        unit = self.map if mode == "const" else torch.randn_like(x[:, :1])
        return x.add_(unit * self.strength.view(-1, 1, 1))


def conv_taps(widths: Sequence[int], first: int = 1) -> tuple[Tap, ...]:
    """Two taps a resolution from 4 px up, `4px_conv1` on; first=2 leaves the very first one out.

    The modules are `layers.0`, `layers.1` and so on, in forward order.
    """
    convs = [(level, k) for level in range(len(widths)) for k in (1, 2) if (level, k) >= (0, first)]
    return tuple(
        Tap(f"{4 * 2**level}px_conv{k}", f"layers.{i}", widths[level], 4 * 2**level)
        for i, (level, k) in enumerate(convs)
    )


def count(tensors: dict[str, Tensor], start: str, end: str, a_resolution: int = 1) -> int:
    """How many names are `<start>*<end>`; InputError beyond 1024 px, at so many a resolution."""
    found = sum(name.startswith(start) and name.endswith(end) for name in tensors)
    if found % a_resolution or not 1 <= found <= MAX_BLOCKS * a_resolution:
        raise InputError(
            f"{found} tensors {start}*{end}",
            f"{a_resolution} a resolution, 4 to 1024 px",
            "check that the file is whole and of this family",
        )
    return found


def mapping_widths(tensors: dict[str, Tensor]) -> tuple[int, ...]:
    """Widths of the mapping network, z's first, from `mlp.*`."""
    depth = sum(name.startswith("mlp.") and name.endswith(".weight") for name in tensors)
    weights = [tensors[f"mlp.{i}.weight"] for i in range(max(depth, 1))]
    return limited((weights[0].shape[1], *(weight.shape[0] for weight in weights)))


def limited(widths: Sequence[int]) -> tuple[int, ...]:
    """The widths, if a network of them can be made: they are what single tensors claim."""
    if not all(1 <= width <= MAX_WIDTH for width in widths):
        raise InputError(f"layers of widths {list(widths)}", f"1 to {MAX_WIDTH}", "check the file")
    return tuple(widths)


def fill(network: Network, tensors: dict[str, Tensor]) -> Network:
    """Load all tensors into the network; InputError if a name or a shape differs."""
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise InputError(
            f"tensors that do not fit ({first})",
            f"a {network.family}",
            "fetch the checkpoint again",
        ) from error
    return network
