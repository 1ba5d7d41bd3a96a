"""Scores of photos' masks against people's masks, with intervals over photos."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from pipeline.metrics.bootstrap import interval_of_mean, percentiles, times_drawn
from pipeline.metrics.iou import intersection_union, percent

Value = dict[str, float | None]


def score_masks(
    confusions: Int[np.ndarray, "repeat photo class class"],  # [target class, predicted class]
    classes: Sequence[str],
) -> dict:
    """mIoU of one confusion matrix over all photos, background included, and IoU by class, in %.

    Of several repeats the mean. A class that no photo of a draw shows is left out of its mean.
    """
    num = confusions.shape[1]
    parts = [intersection_union(one) for one in confusions]
    found = _of_weights(parts, np.ones((1, num)))[0]
    drawn = _of_weights(parts, times_drawn(num))
    per_class = {
        name: percent(found[i], *percentiles(drawn[:, i])) for i, name in enumerate(classes)
    }
    right = np.trace(confusions, axis1=2, axis2=3) / confusions.sum((2, 3))  # [repeat, photo]
    accuracy = right.mean(0)
    return {
        "repeats": len(confusions),
        "miou": percent(float(mean_known(found[None])[0]), *percentiles(mean_known(drawn))),
        "per_class": per_class,
        "pixel_accuracy": percent(float(accuracy.mean()), *interval_of_mean(accuracy)),
    }


def _of_weights(
    parts: Sequence[tuple[np.ndarray, np.ndarray]],  # intersection, union [photo, class] by repeat
    weights: Float[np.ndarray, "draw photo"],  # how often a draw takes each photo
) -> Float[np.ndarray, "draw class"]:
    """IoU by class of each draw, the mean over repeats; NaN where no photo shows the class."""
    with np.errstate(invalid="ignore"):
        found = [(weights @ top) / (weights @ bottom) for top, bottom in parts]
    return mean_known(np.stack(found, -1))


def mean_known(values: Float[np.ndarray, "*n last"]) -> Float[np.ndarray, "*n"]:
    """Mean over the last axis of what is not NaN; NaN if all is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(-1) / known.sum(-1)


def summarize(values: Sequence[float]) -> dict[str, float | int | None]:
    """Mean of a distance over photos, with its interval."""
    if not len(values):
        return {"photos": 0, "mean": None, "low": None, "high": None}
    mean, (low, high) = np.mean(values), interval_of_mean(np.asarray(values, float))
    found = {"mean": float(mean), "low": low, "high": high}
    return {"photos": len(values)} | {name: round(x, 5) for name, x in found.items()}
