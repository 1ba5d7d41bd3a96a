"""Classes as directions in feature space (Xu & Zheng, CVPR 2021, sec 3.1, 3.3 and appendix F).

A pixel is its hypercolumn divided by its norm; a class is the mean of its pixels. Also: which
single channels detect a class already (Bau et al., GAN Dissection, ICLR 2019). No torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import entr  # -p log p, 0 at 0

from pipeline.metrics.bootstrap import DRAWS, percentiles, times_drawn
from pipeline.runtime.errors import InputError

Columns = Float[np.ndarray, "pixel channel"]
Matrix = Float[np.ndarray, "class class"]
Table = Float[np.ndarray, "*#table"]


def unit_sums(
    columns: Columns,
    classes: Int[np.ndarray, " pixel"],
    weights: Float[np.ndarray, " pixel"],
    num_classes: int,
) -> tuple[Float[np.ndarray, "class channel"], Float[np.ndarray, " class"]]:
    """Weighted sums of each class's unit vectors, and the weights' sums."""
    share = weights / np.linalg.norm(columns, axis=1).clip(1e-12)
    spread = np.zeros((num_classes, len(columns)), columns.dtype)
    spread[classes, np.arange(len(columns))] = share
    return (spread @ columns).astype(np.float64), np.bincount(classes, weights, num_classes)


def unit(vectors: Float[np.ndarray, "vector channel"]) -> Float[np.ndarray, "vector channel"]:
    """Each vector divided by its norm; a zero vector stays."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)


def centers(sums: Float[np.ndarray, "class channel"]) -> Float[np.ndarray, "class channel"]:
    """Unit class centers from sums of unit vectors.

    A class without pixels gets the opposite of all others, so that it is the nearest to no pixel
    that resembles any of them.
    """
    found = unit(sums)
    found[~sums.any(1)] = -unit(found.sum(0, keepdims=True))
    return found


def cosines(
    a: Float[np.ndarray, "first channel"], b: Float[np.ndarray, "second channel"]
) -> Float[np.ndarray, "first second"]:
    """Cosine of every row of a with every row of b."""
    return unit(a) @ unit(b).T


# Fair sampling (algorithm 1): per image and class with at least T1 pixels and an unfilled pool, T1
# pixels without replacement, until every pool holds T2. Which images and classes these are follows
# from the masks alone, so an image that has nothing to add is never synthesized.


@dataclass(frozen=True)
class Draw:
    """One image that algorithm 1 draws from: its row, and the classes that it gives pixels of."""

    row: int
    classes: tuple[int, ...]


def fair_plan(
    areas: Int[np.ndarray, "image class"],  # in pixels
    pixels: int,  # T1: of a class that an image shows, drawn at a time
    pool: int,  # T2: of a class, in all
    max_images: int,  # a rare class may never fill
) -> list[Draw]:
    """The draws of algorithm 1, in the order of the images."""
    if min(pixels, pool, max_images) < 1:
        raise InputError(
            f"fair sampling of {pixels} pixels, pools of {pool} and {max_images} images",
            "at least 1 of each",
            "raise fair_pixels, fair_pool or fair_images",
        )
    held = np.zeros(areas.shape[1], int)
    plan: list[Draw] = []
    for row, area in enumerate(areas):
        if len(plan) == max_images:
            break
        classes = np.flatnonzero((area >= pixels) & (held < pool))
        if len(classes):
            held[classes] += pixels
            plan.append(Draw(row, tuple(classes.tolist())))
    return plan


def fair_places(
    mask: Int[np.ndarray, "y x"] | np.ndarray, draw: Draw, pixels: int, seed: int
) -> Int[np.ndarray, "class pixel"]:
    """Places y * size + x of `pixels` different pixels of each class of a draw."""
    rng, flat = np.random.default_rng(seed), mask.ravel()
    found = [rng.choice(np.flatnonzero(flat == k), pixels, replace=False) for k in draw.classes]
    return np.stack(found)


class Similarity:
    """Mean cosine between pixels of every two classes, and its bootstrap over images.

    The mean over all pairs of two sets of unit vectors is the dot product of the sets' means, so
    sums per image are enough: their Gram matrix gives every resampling of the images.
    """

    def __init__(
        self,
        sums: Float[np.ndarray, "image class channel"],  # of unit vectors
        counts: Float[np.ndarray, "image class"],
    ):
        self.counts = counts.astype(np.float64)
        flat = sums.reshape(-1, sums.shape[-1]).astype(np.float64)
        self._gram = (flat @ flat.T).reshape(*counts.shape, *counts.shape)

    def matrix(self, times: np.ndarray | None = None, across: bool = False) -> Matrix:
        """Mean cosines [class, class], NaN without pairs; images counted `times` [image] each.

        `across`: only pairs of pixels of two different images.
        """
        times = np.ones(len(self.counts)) if times is None else times.astype(np.float64)
        total = np.einsum("ajb,j->ab", np.tensordot(times, self._gram, 1), times)
        count = times @ self.counts
        pairs = np.outer(count, count)
        if across:
            squared = times**2
            total -= np.einsum("i,iaib->ab", squared, self._gram)
            pairs -= np.einsum("i,ia,ib->ab", squared, self.counts, self.counts)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(pairs > 0.5, total / pairs, np.nan)

    def share_of_maxima(
        self, across: bool = False, draws: int = DRAWS, seed: int = 0
    ) -> tuple[float, float, float]:
        """Share of classes most similar to themselves, and its 95 % bootstrap interval."""
        drawn = [
            share_of(own_is_maximum(self.matrix(times, across)))
            for times in times_drawn(len(self.counts), seed, draws)
        ]
        return share_of(own_is_maximum(self.matrix(across=across))), *percentiles(np.array(drawn))


def own_is_maximum(matrix: Matrix) -> Float[np.ndarray, " class"]:
    """1 where a row's diagonal is its maximum, 0 where it is not, NaN where it is missing."""
    own = matrix.diagonal()
    largest = np.where(np.isnan(matrix), -np.inf, matrix).max(1)
    return np.where(np.isnan(own), np.nan, own >= largest)


def share_of(flags: Float[np.ndarray, " class"]) -> float:
    """Mean of the flags that are not NaN; NaN if there are none."""
    known = flags[~np.isnan(flags)]
    return float(known.mean()) if len(known) else float("nan")


def greedy(
    candidates: Sequence[int],
    score: Callable[[tuple[int, ...]], float],
    most: int,  # size of the largest set
) -> list[tuple[int, ...]]:
    """Nested sets by forward selection: each adds the candidate that scores best with the last."""
    chosen: tuple[int, ...] = ()
    found = []
    while len(chosen) < min(most, len(candidates)):
        tried = [tuple(sorted((*chosen, c))) for c in candidates if c not in chosen]
        chosen = max(tried, key=score)
        found.append(chosen)
    return found


# Single channels as detectors (GAN Dissection, section 3.1): a pixel is on where the channel is
# above a level, and the IoU of the pixels that are on with a class says how well the channel
# detects it. Of a few levels, quantiles of the channel, each class takes the most informative: of
# the highest information quality ratio IQR = mutual information / joint entropy of on or off with
# class or not. IoU alone would take a level that nearly every pixel exceeds, for a class that is
# nearly everywhere; IQR alone, a channel that is off where the class is. Training pixels choose
# level and channel, so that scores on other pixels are honest.


@dataclass(frozen=True)
class Drawn:
    """Importance-weighted pixels as arrays."""

    columns: Columns
    classes: Int[np.ndarray, " pixel"]
    weights: Float[np.ndarray, " pixel"]


@dataclass(frozen=True)
class Detector:
    """The channel that detects a class best: on for `share` of all pixels."""

    channel: int
    share: float
    iou: float  # on pixels that it was not chosen on


def levels(drawn: Drawn, shares: Sequence[float]) -> Float[np.ndarray, "level channel"]:
    """Levels that each channel exceeds on these shares of the (weighted) pixels."""
    total, num = np.cumsum(drawn.weights, dtype=np.float64), len(drawn.weights)
    even = np.searchsorted(total, (np.arange(num) + 0.5) / num * total[-1])  # in even steps
    columns = np.sort(drawn.columns[even], 0)
    return columns[[min(num - 1, int((1 - share) * num)) for share in shares]]


def iou_and_iqr(
    both: Table,  # weight of the pixels that are on and of the class
    on: Table,
    inside: Table,  # of the class
    total: float,  # of all pixels
) -> tuple[Table, Table]:
    """IoU, and mutual information / joint entropy, of 2x2 tables; the arguments broadcast.

    Both are 0 where they would be 0 / 0: nothing on or inside; one cell holds all pixels.
    """

    def entropy(*sums: np.ndarray) -> np.ndarray:
        return sum(entr(np.maximum(each / total, 0)) for each in sums)  # rounding may be below 0

    joint = entropy(both, on - both, inside - both, total - on - inside + both)
    mutual = entropy(on, total - on) + entropy(inside, total - inside) - joint
    iqr = np.divide(mutual, joint, out=np.zeros_like(joint), where=joint > 1e-12)  # not rounding
    return both / np.maximum(on + inside - both, 1e-12), iqr.clip(0)


def channel_scores(
    drawn: Drawn, level: Float[np.ndarray, " channel"], num_classes: int
) -> tuple[Float[np.ndarray, "class channel"], Float[np.ndarray, "class channel"]]:
    """IoU and IQR with each class of the pixels where a channel exceeds its level."""
    on: Bool[np.ndarray, "pixel channel"] = drawn.columns > level
    spread = np.zeros((num_classes, len(on)))
    spread[drawn.classes, np.arange(len(on))] = drawn.weights
    both, inside = spread @ on.astype(np.float64), spread.sum(1, keepdims=True)
    return iou_and_iqr(both, both.sum(0), inside, float(inside.sum()))


def detectors(
    train: Drawn, held: Drawn, num_classes: int, shares: Sequence[float]
) -> list[Detector | None]:
    """The best channel of each class, scored on other pixels; None for a class without pixels."""
    thresholds = levels(train, shares)
    scores = [channel_scores(train, level, num_classes) for level in thresholds]
    iou, iqr = (np.stack(values) for values in zip(*scores, strict=True))
    informative = iqr.argmax(0)  # [class, channel]: the level's index
    channels = np.take_along_axis(iou, informative[None], 0)[0].argmax(1)
    chosen = informative[np.arange(num_classes), channels]
    detecting = replace(held, columns=held.columns[:, channels])
    tested = channel_scores(detecting, thresholds[chosen, channels], num_classes)[0].diagonal()
    return [
        Detector(int(channels[k]), shares[chosen[k]], float(tested[k]))
        if (train.classes == k).any() and (held.classes == k).any()
        else None
        for k in range(num_classes)
    ]
