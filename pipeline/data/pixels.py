"""Which pixels a linear fit reads, and their hypercolumns (Hariharan et al. 2015)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from pipeline.data.palette import UNLABELED

# Shares of the draws: uniform over the image, evenly over the classes, on mask boundaries.
UNIFORM, BY_CLASS, BOUNDARY = 0.3, 0.3, 0.4


@dataclass(frozen=True)
class Pixels:
    """Drawn pixels: place y * size + x, class, and the weight that makes sums unbiased."""

    places: Int[np.ndarray, " pixel"]
    classes: UInt8[np.ndarray, " pixel"]
    weights: Float[np.ndarray, " pixel"]


def draw_pixels(mask: np.ndarray, count: int, seed: int, num_classes: int) -> Pixels:
    """Draw `count` pixels of mask [S, S] from a mixture q, each weighted by 1 / (count q N).

    N is the number of labeled pixels, S^2 of a full mask; UNLABELED ones are never drawn. A
    weighted sum over the draws estimates the mean over the N pixels without bias. Systematic
    draws (one offset, even steps through the cumulative q) keep the variance low.
    """
    labeled = np.flatnonzero(mask != UNLABELED)
    flat = mask.ravel()[labeled]
    area = np.bincount(flat, minlength=num_classes)
    present = (area > 0).sum()
    by_class = 1.0 / (present * area[flat])
    edge = boundary(mask).ravel()[labeled].astype(np.float64)
    if edge.sum():
        q = UNIFORM / flat.size + BY_CLASS * by_class + BOUNDARY * edge / edge.sum()
    else:
        q = (UNIFORM + BOUNDARY) / flat.size + BY_CLASS * by_class
    q /= q.sum()
    steps = (np.arange(count) + np.random.default_rng(seed).random()) / count
    places = np.searchsorted(np.cumsum(q), steps * (1 - 1e-12))
    places = np.minimum(places, flat.size - 1).astype(np.int32)
    weights = (1.0 / (count * q[places] * flat.size)).astype(np.float32)
    return Pixels(labeled[places].astype(np.int32), flat[places], weights)


def boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels [S, S] bool with a neighbor (of four) of another class; UNLABELED is no class."""
    edge, known = np.zeros(mask.shape, bool), mask != UNLABELED
    down = (mask[1:] != mask[:-1]) & known[1:] & known[:-1]
    right = (mask[:, 1:] != mask[:, :-1]) & known[:, 1:] & known[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge


def hypercolumns(
    features: Sequence[Tensor], places: np.ndarray, size: int, align_corners: bool
) -> Float[Tensor, "pixel channel"]:
    """All taps [C, H, W] of one sample at the pixels `places` of a size x size grid, bilinearly.

    Equal, to rounding, to interpolating every tap to the whole grid and reading the pixels there.
    """
    y, x = torch.from_numpy(np.stack(np.divmod(places, size))).to(features[0].device)
    return torch.cat([_lookup(f, y, x, size, align_corners) for f in features], 1)


def _lookup(feature: Tensor, y: Tensor, x: Tensor, size: int, align_corners: bool) -> Tensor:
    height, width = feature.shape[1:]
    (y0, y1, ty), (x0, x1, tx) = (
        _neighbors(place, length, size, align_corners)
        for place, length in ((y, height), (x, width))
    )
    pixels = feature.permute(1, 2, 0)
    top = pixels[y0, x0].float().lerp(pixels[y0, x1].float(), tx)
    bottom = pixels[y1, x0].float().lerp(pixels[y1, x1].float(), tx)
    return top.lerp(bottom, ty)


def _neighbors(
    place: Tensor, length: int, size: int, align_corners: bool
) -> tuple[Tensor, Tensor, Tensor]:
    if align_corners:
        at = place.float() * ((length - 1) / (size - 1))
    else:
        at = ((place.float() + 0.5) * (length / size) - 0.5).clamp_min(0)
    low = at.floor().long().clamp_max(length - 1)
    return low, (low + 1).clamp_max(length - 1), (at - low)[:, None]
