"""Scores of confusion matrices [sample, class, class] on the test split, with their intervals."""

from collections.abc import Sequence

import numpy as np

from pipeline.metrics.bootstrap import percentiles
from pipeline.metrics.iou import (
    PROTOCOLS,
    PixelCounts,
    intersection_union,
    miou_interval,
    paired_interval,
    percent,
    resampled_means,
    summary,
)


def overall(confusion: np.ndarray, classes: Sequence[str]) -> dict:
    """Scores of all classes, by both protocols."""
    return summary(PixelCounts.of(confusion), classes)


def by_protocol(confusion: np.ndarray) -> dict:
    """mIoU in percent with its interval, of each protocol."""
    pair, found = intersection_union(confusion), {}
    for name, score in PROTOCOLS.items():
        low, high = miou_interval(*pair, name)
        found[name] = percent(score(*pair).mean, low, high)
    return found


def relative(confusion: np.ndarray, reference: np.ndarray) -> dict:
    """mIoU in percent of the reference's, with the interval over images resampled together."""
    pairs, found = [intersection_union(c) for c in (confusion, reference)], {}
    for name, score in PROTOCOLS.items():
        a, b = resampled_means(pairs, name)
        low, high = percentiles(a / b)
        found[name] = percent(score(*pairs[0]).mean / score(*pairs[1]).mean, low, high)
    return found


def gaps(first: np.ndarray, second: np.ndarray) -> dict:
    """Difference of mIoU in points, with its paired interval."""
    pairs, found = [intersection_union(c) for c in (first, second)], {}
    for name, score in PROTOCOLS.items():
        low, high = paired_interval(pairs[0], pairs[1], name)
        found[name] = percent(score(*pairs[0]).mean - score(*pairs[1]).mean, low, high)
    return found
