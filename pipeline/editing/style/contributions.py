"""What each channel contributes to each region, and edits of style scales by it.

Collins et al., "Editing in Style" (CVPR 2020), sec. 3.2 and 3.3, eq (1) to (5).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.data.features import Source
from pipeline.generators.contract import Generator
from pipeline.generators.taps import edit, record
from pipeline.runtime.errors import InputError, choose

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
    variance, per image or over all samples, and U the memberships. With x the map less its mean m
    in an image, and S0, S1, S2 the means over pixels of U, x U and x^2 U, [channel, group] each,

        per image:   the mean over images of S2 / variance,       variance = sum_k S2
        data set:    R / variance with R = sum of (x + m - mean of m)^2 U, by S0, S1, S2 and m,

    so a few running sums are all that is kept.
    """

    def __init__(self, normalization: str = "image"):
        self.normalization = choose("normalization", normalization, NORMALIZATIONS)
        self._images = 0
        self._mean = self._power = self._shares = np.zeros(())  # sums over images, in float64
        self._moments = [np.zeros(()) for _ in range(3)]  # of U, map U and map^2 U

    def add(self, maps: Maps, membership: Membership) -> None:
        """Take a batch; memberships are at the maps' resolution and sum to 1 over groups."""
        pixels = maps[0, 0].numel()
        mean = maps.mean((2, 3), keepdim=True)
        x = (maps - mean).flatten(2)
        u = membership.to(maps.dtype).flatten(2).transpose(1, 2)
        power = maps.square().mean((2, 3)).double().cpu().numpy()
        m = mean[:, :, 0].double().cpu().numpy()
        s0, s1, s2 = (
            (part / pixels).double().cpu().numpy()
            for part in (u.sum(1)[:, None], x @ u, x.square() @ u)
        )
        self._images += len(maps)
        self._mean = self._mean + m.sum(0)
        self._power = self._power + power.sum(0)
        self._shares = self._shares + _shares(s2, power).sum(0)
        for i, part in enumerate((s0, s1 + m * s0, s2 + 2 * m * s1 + m**2 * s0)):
            self._moments[i] = self._moments[i] + part.sum(0)

    @property
    def matrix(self) -> Float[np.ndarray, "group channel"]:
        """M; a channel that is constant has zeros, any other one sums to 1 over groups."""
        if not self._images:
            raise InputError("no samples", "at least one", "add a batch first")
        if self.normalization == "image":
            return self._shares.T / self._images
        zeroth, first, second = self._moments
        mean = self._mean / self._images
        return _shares(second - 2 * mean * first + mean**2 * zeroth, self._power).T


def _shares(
    parts: Float[np.ndarray, "*images channel group"], power: Float[np.ndarray, "*images channel"]
) -> Float[np.ndarray, "*images channel group"]:
    """The parts of a variance that lie in each group; 0 for all if it is rounding."""
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

    def change(name: str) -> Callable[[Tensor], Tensor]:
        q = torch.from_numpy(query[name]).float()
        return lambda own: interpolate(own, reference[name], q.to(own.device), with_bias)

    moved = {s: change(s.name) for s in generator.styles if np.any(query.get(s.name, 0))}
    with edit(generator, moved):
        yield


def one_hot(
    labels: UInt8[np.ndarray, "sample y x"], groups: int
) -> Float[Tensor, "sample group y x"]:
    """Memberships of hard labels."""
    return F.one_hot(torch.from_numpy(labels).long(), groups).permute(0, 3, 1, 2).float()


def measure_contributions(
    source: Source,
    memberships: Mapping[str, tuple[np.ndarray, int]],  # {name: labels, number of groups}
    normalization: str,
    resampling: str,
    size: int,  # of the images whose mean and deviation are measured, px
) -> tuple[dict[str, np.ndarray], tuple[float, float]]:
    """M of every membership and style {`membership/style`: [group, channel]}; image statistics."""
    generator, images = source.generator(), []
    taps = [style.tap for style in generator.styles if style.tap is not None]
    names = [(kind, style) for kind in memberships for style in generator.styles]
    sums = {(kind, style): Contributions(normalization) for kind, style in names}
    total, step = len(next(iter(memberships.values()))[0]), source.batch_size
    for start in range(0, total, step):
        rows = slice(start, min(start + step, total))
        shares = {kind: one_hot(labels[rows], k) for kind, (labels, k) in memberships.items()}
        with (
            torch.inference_mode(),
            record(generator, taps) as features,
            record(generator, generator.styles) as scales,
        ):
            drawn = generator.synthesis(source.ws("train", rows.start, rows.stop))
            images.append(F.interpolate(drawn, (size, size), mode="area").double().cpu())
            for style in generator.styles:
                maps = generator.scaled_map(style, features, scales).float()
                for kind, u in shares.items():
                    there = resample(u.to(maps.device), style.resolution, resampling)
                    sums[kind, style].add(maps, there)
    pixels = torch.cat(images)
    matrices = {f"{kind}/{style.name}": sums[kind, style].matrix for kind, style in names}
    return matrices, (float(pixels.mean()), float(pixels.std()))
