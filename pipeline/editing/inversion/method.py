"""Inversion: latents of W+ whose linear reading looks like a photograph; no image is synthesized.

The loss is on the linear reading of the image from feature maps (extractors/appearance.py), so a
step ends at the last of its taps. Latents are in standard deviations of w along the principal axes
of its covariance, in which all directions are equally likely, and begin at the mean of w.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pipeline.editing.inversion.options import Inversion
from pipeline.editing.inversion.perceptual import Perceptual
from pipeline.editing.optimize import Optimized, Rendered, optimize_latents
from pipeline.extractors.appearance import preview
from pipeline.extractors.networks import LSE
from pipeline.generators.contract import Generator
from pipeline.generators.latents import sample_z

BLUR = 4  # px of a side that `blurred` averages over

Photos = Float[Tensor, "sample 3 size size"]


@dataclass(frozen=True)
class Whitening:
    """Coordinates of w whose covariance is the identity: w = mean + v @ axes."""

    mean: Float[Tensor, " w_dim"]
    axes: Float[Tensor, "w_dim w_dim"]  # rows: principal axes, each of its standard deviation

    def ws(self, v: Float[Tensor, "*n w_dim"]) -> Float[Tensor, "*n w_dim"]:
        """w of coordinates."""
        return self.mean + v @ self.axes


@torch.no_grad()
def whiten(generator: Generator, samples: int, seed: int) -> Whitening:
    """The coordinates of the covariance of w, from random samples without truncation."""
    z = torch.from_numpy(sample_z(range(seed, seed + samples), generator.z_dim))
    w = generator.style(z.to(generator.device)).double()
    mean = w.mean(0)
    values, vectors = torch.linalg.eigh((w - mean).T @ (w - mean) / (samples - 1))
    axes = (vectors * values.clamp_min(0).sqrt()).T
    return Whitening(mean.float(), axes.float())


class Looks(NamedTuple):
    """How far images are from photos, by each term of the loss."""

    perceptual: Float[Tensor, " sample"]
    pixels: Float[Tensor, " sample"]
    blurred: Float[Tensor, " sample"]


def compare(perceptual: Perceptual, photos: Photos) -> Callable[[Photos], Looks]:
    """A function from images to their distances from photos, whose features are found once."""
    with torch.no_grad():
        wanted, means = perceptual.features(photos), _blurred(photos)

    def look(images: Photos) -> Looks:
        return Looks(
            perceptual.distance(perceptual.features(images), wanted),
            (images - photos).square().mean((1, 2, 3)),
            (_blurred(images) - means).square().mean((1, 2, 3)),
        )

    return look


def _blurred(images: Photos) -> Tensor:
    return F.avg_pool2d(images, min(BLUR, images.shape[-1]))


def invert(
    generator: Generator,
    appearance: LSE,
    perceptual: Perceptual,
    photos: Photos,  # in [-1, 1], at the reading's size
    rule: Inversion,
    whitening: Whitening,
) -> Optimized:
    """Search the latents of photos as one batch; latents are whitened ones of W+."""
    look = compare(perceptual, photos)

    def forward(v: Tensor) -> Rendered:
        ws = whitening.ws(v)
        return Rendered(v, ws, images=preview(generator, appearance, ws))

    def loss(rendered: Rendered) -> Float[Tensor, " sample"]:
        found, v = look(rendered.pictures), rendered.latents
        likeness = found.perceptual + rule.pixels * found.pixels + rule.blurred * found.blurred
        spread = (v - v.mean(1, keepdim=True)).square().mean((1, 2))
        return likeness + rule.prior * v.square().mean((1, 2)) + rule.spread * spread

    start = photos.new_zeros(len(photos), generator.num_ws, generator.w_dim)
    return optimize_latents(forward, start, loss, rule.steps, rule.rate)
