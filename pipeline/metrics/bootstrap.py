"""Bootstrap intervals of scores: one rule for all.

Units (images, targets, pairs, directions) are drawn with replacement, DRAWS times, all methods on
the same draws. A class that a draw does not show is left out of that draw's mean; a draw whose
statistic is NaN is left out. The interval is from the 2.5th to the 97.5th percentile.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

DRAWS = 1000
LEVELS = (2.5, 97.5)  # percentiles of a 95 % interval


def resample(num: int, seed: int = 0, draws: int = DRAWS) -> Int[np.ndarray, "draw unit"]:
    """Indices of `num` units drawn with replacement."""
    return np.random.default_rng(seed).integers(0, num, (draws, num))


def times_drawn(num: int, seed: int = 0, draws: int = DRAWS) -> Float[np.ndarray, "draw unit"]:
    """How often each draw takes each unit: sums over a draw's units are matrix products."""
    rows = resample(num, seed, draws)
    return np.stack([np.bincount(row, minlength=num) for row in rows]).astype(np.float64)


def percentiles(draws: Float[np.ndarray, " draw"]) -> tuple[float, float]:
    """The 95 % interval of a statistic's draws without the NaN ones; (NaN, NaN) if none is left."""
    known = np.asarray(draws, float)
    known = known[~np.isnan(known)]
    return tuple(np.percentile(known, LEVELS).tolist()) if len(known) else (np.nan, np.nan)


def interval(
    statistic: Callable[[Int[np.ndarray, " unit"]], float],  # of the units of these indices
    num: int,
    seed: int = 0,
    draws: int = DRAWS,
) -> tuple[float, float, float]:
    """A statistic of `num` units and its 95 % interval, which is (NaN, NaN) of a single unit."""
    drawn = [statistic(rows) for rows in resample(num, seed, draws)] if num > 1 else []
    return statistic(np.arange(num)), *percentiles(np.array(drawn))


def interval_of_mean(
    values: Float[np.ndarray, " unit"], seed: int = 0, draws: int = DRAWS
) -> tuple[float, float]:
    """The 95 % interval of the mean over units; of paired differences, the paired one."""
    return percentiles(np.asarray(values, float)[resample(len(values), seed, draws)].mean(1))
