"""Features for a linear classifier, sample by sample: a generator's, a redrawn one's, an image's.

The last two have learned nothing; analysis/controls.py measures what they are worth.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pipeline.data.arrays import Group
from pipeline.data.features import Source, stream
from pipeline.data.images import to_float
from pipeline.generators.registry import Generator, load_generator
from pipeline.generators.taps import Tap

WAVES = 100  # largest k^2 + l^2 of a plane wave: 158 waves, 316 channels
WIDTHS = (64, 256)  # channels of the random encoder: the finest level's, and the most


class Features(ABC):
    """A feature source: what an LSE can be fitted on, sample by sample."""

    @property
    @abstractmethod
    def taps(self) -> tuple[Tap, ...]:
        """Names, channels and resolutions of the maps."""

    @abstractmethod
    def maps(self, split: str, start: int, stop: int) -> Iterator[dict[str, Tensor]]:
        """Yield {tap name: [N, C, H, W]} batch by batch."""


@dataclass(frozen=True)
class GeneratorFeatures(Features):
    """All taps of a generator, synthesized anew."""

    source: Source

    @property
    def taps(self) -> tuple[Tap, ...]:
        """The generator's own."""
        return self.source.generator().taps

    def maps(self, split: str, start: int, stop: int) -> Iterator[dict[str, Tensor]]:
        """Yield {tap name: [N, C, H, W]} batch by batch."""
        return (features for features, _ in stream(self.source, split, start, stop, self.taps))


@dataclass(frozen=True)
class Reinitialized(Source):
    """A study's samples in a generator whose weights are drawn again.

    The ws are the study's own: the trained mapping stays, and so do the masks.
    """

    seed: int = 0

    def generator(self) -> Generator:
        """The redrawn generator, made once a process."""
        return _reinitialized(self)


@lru_cache(maxsize=1)
def _reinitialized(source: Reinitialized) -> Generator:
    generator = load_generator(source.checkpoint, device=source.device, dtype=source.compute)
    redraw(generator, source.seed)
    norms = [m for m in generator.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    if norms:
        _measure_norms(generator, norms, source)
    return generator


def redraw(generator: Generator, seed: int) -> None:
    """Draw every weight and bias from a normal law with its own tensor's mean and deviation.

    PyTorch's default would ignore that modulations have means of 2 to 5 and kernels deviations of
    .04 to 5; with the trained scale, signals neither die nor explode. Noise maps stay.
    """
    rng = torch.Generator().manual_seed(seed)
    for value in generator.parameters():
        if value.numel() > 1:
            spread, mean = torch.std_mean(value.float())
            drawn = torch.randn(value.shape, generator=rng).to(value.device)
            value.copy_(drawn * spread + mean)


def _measure_norms(
    generator: Generator, norms: Sequence[torch.nn.BatchNorm2d], source: Source
) -> None:
    """Batch statistics of other weights do not fit: average them anew over training samples."""
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
        norm.train()
    total = min(256, Group(source.latents).splits["train"])
    with torch.inference_mode(False), torch.no_grad():
        for start in range(0, total, 64):
            generator.synthesis(source.ws("train", start, min(start + 64, total)))
    generator.eval()


@dataclass(frozen=True)
class ImageFeatures(Features):
    """Features of the stored image, at label size: those of PARTS that are named."""

    images: str  # zarr group with <split>/images
    parts: tuple[str, ...]
    seed: int = 0
    device: str = "cpu"

    @property
    def size(self) -> int:
        """Side of the images, px."""
        return image_size(self.images)

    @property
    def taps(self) -> tuple[Tap, ...]:
        """One for fourier and for rgb, one a level for the encoder."""
        found = []
        for part in self.parts:
            if part == "encoder":
                found += [Tap(f"{r}px", part, c, r) for r, c in levels(self.size)]
            else:
                channels = 3 if part == "rgb" else len(fourier(self.size))
                found.append(Tap(part, part, channels, self.size))
        return tuple(found)

    @torch.inference_mode()
    def maps(self, split: str, start: int, stop: int) -> Iterator[dict[str, Tensor]]:
        """Yield {tap name: [N, C, H, W]} batch by batch."""
        step = max(1, (256 // self.size) ** 2)
        for first in range(start, stop, step):
            rows = slice(first, min(first + step, stop))
            images = to_float(Group(self.images).read(split, "images", rows)).to(self.device)
            found: dict[str, Tensor] = {}
            for part in self.parts:
                found |= PARTS[part](images, self.seed)
            yield found


@lru_cache(maxsize=4)
def image_size(images: str) -> int:
    """Side of the stored images, px."""
    return Group(images).label_size


@lru_cache(maxsize=4)
def fourier(size: int) -> Float[Tensor, "channel y x"]:
    """Plane waves sin and cos of pi (k x + l y) at the pixel centers of the unit square.

    One of each pair +-(k, l) with 0 < k^2 + l^2 <= WAVES. Their period is 2, so that opposite
    borders need not agree.
    """
    reach = range(-int(WAVES**0.5), int(WAVES**0.5) + 1)
    waves = [(k, m) for m in reach for k in reach if (m, k) > (0, 0) and k * k + m * m <= WAVES]
    at = (torch.arange(size) + 0.5) / size * torch.pi
    phase = torch.stack([k * at[None, :] + m * at[:, None] for k, m in waves])
    return torch.cat([phase.sin(), phase.cos()])


def levels(size: int) -> list[tuple[int, int]]:
    """(resolution, channels) of the encoder: halved down to 4 px, widths doubled up to the most."""
    first, most = WIDTHS
    halvings = range(size.bit_length() - 2)
    return [(size >> i, min(most, first << i)) for i in halvings if size >> i >= 4]


@lru_cache(maxsize=2)
def _encoder(size: int, seed: int, device: str) -> list[tuple[Tensor, Tensor]]:
    """Random kernels [C, C_in, 3, 3] that keep the signal's power (He et al.), and biases [C]."""
    rng, width, layers = torch.Generator().manual_seed(seed), 3, []
    for _, channels in levels(size):
        kernel = torch.randn(channels, width, 3, 3, generator=rng) * (2 / (9 * width)) ** 0.5
        bias = torch.randn(channels, generator=rng) * 0.3
        kernel = kernel.contiguous(memory_format=torch.channels_last)
        layers.append((kernel.to(device), bias.to(device)))
        width = channels
    return layers


def encode(images: Float[Tensor, "sample 3 y x"], seed: int) -> dict[str, Tensor]:
    """A random convolutional encoder of the image: 3x3, LeakyReLU 0.2, then halved by averaging.

    Its zero padding also tells how far the border is.
    """
    x = images.contiguous(memory_format=torch.channels_last)
    found: dict[str, Tensor] = {}
    for kernel, bias in _encoder(images.shape[-1], seed, str(images.device)):
        if found:
            x = F.avg_pool2d(x, 2)
        x = F.leaky_relu_(F.conv2d(x, kernel, bias, padding=1), 0.2)
        found[f"{x.shape[-1]}px"] = x
    return found


def _waves(images: Tensor, seed: int) -> dict[str, Tensor]:
    waves = fourier(images.shape[-1]).to(images.device)
    return {"fourier": waves.expand(len(images), -1, -1, -1)}


PARTS = {"rgb": lambda images, seed: {"rgb": images}, "fourier": _waves, "encoder": encode}
