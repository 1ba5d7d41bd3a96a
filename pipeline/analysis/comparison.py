"""Extractors side by side on the same held-out masks: paired intervals, class confusion."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.metrics.bootstrap import percentiles
from pipeline.metrics.iou import PROTOCOLS, PixelCounts, resampled_means
from pipeline.runtime.errors import InputError


def count(predictions: Mapping[str, np.ndarray], target: np.ndarray, num_classes: int) -> dict:
    """{name: PixelCounts} of masks [N, S, S] against the same target."""
    counts = {}
    for name, predicted in predictions.items():
        counts[name] = PixelCounts(num_classes)
        counts[name].add(predicted, target)
    return counts


def against_best(
    counts: Mapping[str, PixelCounts], candidates: Sequence[str], draws: int = 1000, seed: int = 0
) -> dict[str, dict]:
    """Every extractor's score minus that of the best of `candidates`, per protocol, in points.

    Also relative to it, (y - y*) / y* in percent, as table 1 of Xu & Zheng has it. low and high:
    95 % bootstrap interval, images resampled together.
    """
    if unknown := [name for name in candidates if name not in counts]:
        raise InputError(
            f"no predictions of {unknown[0]}",
            f"one of {', '.join(counts)}",
            "add it to extractors in params.yaml",
        )
    result: dict[str, dict] = {}
    for protocol, score in PROTOCOLS.items():
        pairs = {name: found.intersection_union() for name, found in counts.items()}
        means = {name: score(*pair).mean for name, pair in pairs.items()}
        best = max(candidates, key=means.__getitem__)
        drawn = dict(
            zip(pairs, resampled_means(list(pairs.values()), protocol, draws, seed), strict=True)
        )
        rows = {}
        for name in counts:
            difference = drawn[name] - drawn[best]
            with np.errstate(divide="ignore", invalid="ignore"):  # the best may score 0 in a draw
                relative = np.where(drawn[best] > 0, difference / drawn[best], np.nan)
                whole = np.float64(means[name]) / means[best] - 1
            rows[name] = _spread("points", means[name] - means[best], difference) | _spread(
                "relative", whole, relative
            )
        result[protocol] = {"best": best, "minus_best": rows}
    return result


def _spread(name: str, value: float, draws: np.ndarray) -> dict[str, float]:
    low, high = percentiles(draws)
    parts = {name: value, f"{name}_low": low, f"{name}_high": high}
    return {key: round(100 * float(v), 3) for key, v in parts.items()}


def confusion(counts: PixelCounts) -> np.ndarray:
    """Share of each target class's pixels [target, predicted]; a row of NaN if it never occurs."""
    total = counts.per_image.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / total.sum(1, keepdims=True)


def confusion_rows(
    counts: PixelCounts, classes: Sequence[str], per_class: int = 100
) -> list[tuple[str, str]]:
    """About `per_class` (actual, predicted) rows a class in the shares of the confusion matrix.

    What `dvc plots` draws a confusion matrix from; largest remainders keep the sum exact.
    """
    rows = []
    for name, shares in zip(classes, confusion(counts), strict=True):
        if np.isnan(shares).any():
            continue
        exact = shares * per_class
        whole = np.floor(exact).astype(int)
        rest = per_class - whole.sum()
        whole[np.argsort(whole - exact, kind="stable")[:rest]] += 1
        rows += [
            (name, predicted) for predicted, n in zip(classes, whole, strict=True) for _ in range(n)
        ]
    return rows
