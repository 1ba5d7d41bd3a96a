"""DCGAN (Radford et al. 2016): transposed convolutions, batch norm, ReLU; w = z."""

import torch
from torch import Tensor, nn

from pipeline.generators.contract import Generator
from pipeline.generators.taps import Tap
from pipeline.runtime.errors import InputError

LAYERS = 5


class DCGAN(Generator):
    """Five transposed convolutions from 1 px to 64 px; taps after each hidden ReLU."""

    family = "dcgan"

    def __init__(self, z_dim: int, widths: tuple[int, ...], stem: int = 4):
        super().__init__()
        self.z_dim = self.w_dim = z_dim
        self.num_ws = 1
        self.resolution = stem * 2 ** len(widths)
        inputs = (z_dim, *widths[:-1])
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(
                    i,
                    o,
                    stem if level == 0 else 4,
                    2 if level else 1,
                    1 if level else 0,
                    bias=False,
                ),
                nn.BatchNorm2d(o),
                nn.ReLU(),
            )
            for level, (i, o) in enumerate(zip(inputs, widths, strict=True))
        )
        self.to_rgb = nn.ConvTranspose2d(widths[-1], 3, 4, 2, 1, bias=False)
        self.register_buffer("w_avg", torch.zeros(z_dim))
        self.taps = tuple(
            Tap(f"block{level}", f"blocks.{level}", width, stem * 2**level)
            for level, width in enumerate(widths)
        )

    @property
    def style_weights(self) -> dict[str, Tensor]:
        """The first layer as a matrix: a row for each of its outputs, channel by position."""
        return {"blocks.0": self.get_parameter("blocks.0.0.weight").flatten(1).T.float()}

    def style(self, z: Tensor) -> Tensor:
        """The identity: DCGAN has no mapping network."""
        return z

    def draw(self, ws: Tensor, stop: str | None, noise_mode: str) -> Tensor | None:
        """ws [N, 1, z_dim] to images in [-1, 1]; there is no noise to switch off."""
        x = ws[:, 0, :, None, None]
        for tap, block in zip(self.taps, self.blocks, strict=True):
            x = block(x)
            if tap.name == stop:
                return None
        return self.to_rgb(x).tanh()


def from_torch_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the PyTorch tutorial's `main.*` keys; InputError says which one is missing."""
    names = {f"main.{3 * (LAYERS - 1)}.weight": "to_rgb.weight"}
    for level in range(LAYERS - 1):
        names[f"main.{3 * level}.weight"] = f"blocks.{level}.0.weight"
        for part in ("weight", "bias", "running_mean", "running_var"):
            names[f"main.{3 * level + 1}.{part}"] = f"blocks.{level}.1.{part}"
    if missing := sorted(names.keys() - tensors.keys()):
        raise InputError(
            f"a checkpoint without {missing[0]}", "a DCGAN of five layers", "check the family"
        )
    return {new: tensors[old].float() for old, new in names.items()}


def build(tensors: dict[str, Tensor]) -> DCGAN:
    """Build the network from our own tensor names; widths are read from the weights."""
    weights = [tensors[f"blocks.{level}.0.weight"] for level in range(LAYERS - 1)]
    network = DCGAN(weights[0].shape[0], tuple(w.shape[1] for w in weights), weights[0].shape[-1])
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    allowed = {f"blocks.{level}.1.num_batches_tracked" for level in range(LAYERS - 1)} | {"w_avg"}
    if unexpected or set(missing) - allowed:
        raise InputError(
            f"tensors that miss {missing} and add {unexpected}", "a DCGAN", "fetch it again"
        )
    return network
