"""What each channel contributes to each region, and edits of style scales by it.

Collins et al., "Editing in Style" (CVPR 2020), sec. 3.2 and 3.3, eq (1) to (5).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pipeline.errors import InputError, choose
from pipeline.generators.base import Generator
from pipeline.taps import edit

Maps = Float[Tensor, "sample channel height width"]
Membership = Float[Tensor, "sample group y x"]
Row = Float[np.ndarray, " channel"]

NORMALIZATIONS = ("image", "dataset")
RESAMPLINGS = ("bilinear", "nearest", "area")
CONSTANT = 1e-10  # a variance below this share of the mean square is rounding


def normalize(maps: Maps) -> Maps:
    """Zero mean and unit variance per image and channel; a constant channel becomes 0."""
    centered = maps - maps.mean((2, 3), keepdim=True)
    variance = centered.square().mean((2, 3), keepdim=True)
    power = maps.square().mean((2, 3), keepdim=True)
    return torch.where(variance > CONSTANT * power, centered * variance.rsqrt(), 0.0)


def resample(
    membership: Membership, size: int, how: str = "bilinear"
) -> Float[Tensor, "sample group size size"]:
    """Group memberships at another resolution; `area` is bilinear where it enlarges.

    Each of them keeps the sum over groups at 1.
    """
    choose("resampling", how, RESAMPLINGS)
    if membership.shape[-1] == size:
        return membership
    if how == "nearest" or (how == "area" and size < membership.shape[-1]):
        return F.interpolate(membership, (size, size), mode=how)
    return F.interpolate(membership, (size, size), mode="bilinear", align_corners=False)


class Contributions:
    """M [group, channel] of one layer: the share of a channel's variance that lies in each group.

    M[k, c] = mean over samples and pixels of A^2 U (eq 1), with A the maps of zero mean and unit
    variance, per image or over all samples, and U the memberships. Per image of H W pixels, with
    S0, S1, S2 the sums of U, U x and U x^2 and x = map - its mean m in the image,

        sum of U A^2 = S2 / variance,                      variance = sum_k S2 / (H W)

    and over the data set the same of x = map - m + (m - mean of m). So sums are all that is kept.
    """

    def __init__(self, normalization: str = "image"):
        self.normalization = choose("normalization", normalization, NORMALIZATIONS)
        self._images: list[tuple[np.ndarray, ...]] = []  # m, S0, S1, S2, power of each image

    def add(self, maps: Maps, membership: Membership) -> None:
        """Take a batch; memberships are at the maps' resolution and sum to 1 over groups."""
        pixels = maps[0, 0].numel()
        mean = maps.mean((2, 3), keepdim=True)
        x = (maps - mean).flatten(2)
        u = membership.to(maps.dtype).flatten(2).transpose(1, 2)
        first, second = x @ u, x.square() @ u
        power = maps.square().mean((2, 3))
        zeroth = u.sum(1)[:, None]
        for parts in zip(mean[:, :, 0, 0], zeroth, first, second, power, strict=True):
            m, s0, s1, s2, p = (part.double().cpu().numpy() for part in parts)
            self._images.append((m, s0 / pixels, s1 / pixels, s2 / pixels, p))

    @property
    def matrix(self) -> Float[np.ndarray, "group channel"]:
        """M; a channel that is constant has zeros, any other one sums to 1 over groups."""
        if not self._images:
            raise InputError("no samples", "at least one", "add a batch first")
        m, s0, s1, s2, power = (np.stack(parts) for parts in zip(*self._images, strict=True))
        if self.normalization == "image":
            shares = _shares(s2, power)
        else:
            shift = (m - m.mean(0))[..., None]
            moved = s2 + 2 * shift * s1 + shift**2 * s0
            shares = _shares(moved.mean(0, keepdims=True), power.mean(0, keepdims=True))
        return shares.mean(0).T


def _shares(
    parts: Float[np.ndarray, "sample channel group"], power: Float[np.ndarray, "sample channel"]
) -> Float[np.ndarray, "sample channel group"]:
    variance = parts.sum(-1)
    constant = variance <= CONSTANT * power
    shares = parts / np.where(constant, 1, variance)[..., None]
    return np.where(constant[..., None], 0, shares)


def query_simultaneous(contribution: Row, strength: float) -> Row:
    """Eq (4): q = min(1, strength M) of one group's row of M."""
    return np.minimum(1, strength * contribution)


def query_sequential(contribution: Row, epsilon: float, threshold: float = 0.0) -> Row:
    """Eq (5): q = 1 for the channels of largest M while the sum of their 1 - M is within epsilon.

    The paper prints argmin; it is an argmax. Only channels with M > threshold count, which is
    rho / (1 + rho) of the paper's rho; epsilon is in channels.
    """
    order = np.argsort(-contribution, kind="stable")
    spent = np.cumsum(1 - contribution[order])
    q = np.zeros_like(contribution)
    q[order] = spent <= epsilon
    return np.where(contribution > threshold, q, 0)


def interpolate(own: Tensor, other: Tensor, q: Tensor, with_bias: bool = False) -> Tensor:
    """Eq (3): own + q (other - own) for scales [N, C, ...] and q [C]; biases stay by default.

    A style of width 2 C holds scales, then biases.
    """
    channels = len(q)
    if own.shape[1] == 2 * channels:
        q = torch.cat([q, q if with_bias else torch.zeros_like(q)])
    q = q.view(-1, *[1] * (own.ndim - 2)).to(own)
    return torch.where(q == 1, other, own + q * (other - own))


@contextmanager
def restyled(
    generator: Generator,
    reference: Mapping[str, Tensor],  # styles of the reference, as `record` gives them
    query: Mapping[str, Row],  # q of each style; absent: 0
    with_bias: bool = False,
) -> Iterator[None]:
    """Inside the `with`, every pass has its scales moved towards the reference's by q."""

    def change(name: str):
        q = torch.from_numpy(query[name]).float()
        return lambda own: interpolate(own, reference[name], q.to(own.device), with_bias)

    moved = {s: change(s.name) for s in generator.styles if np.any(query.get(s.name, 0))}
    with edit(generator, moved):
        yield
