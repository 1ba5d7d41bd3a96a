"""Segmentation scores in both protocols of the field, with bootstrap intervals over images.

`miou_per_image` is eq (4) of Xu & Zheng (CVPR 2021); `miou_dataset` is the usual one from a single
confusion matrix. They differ by several points on rare classes: never mix them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from pipeline.metrics.bootstrap import DRAWS, percentiles, times_drawn
from pipeline.runtime.errors import InputError, choose

Masks = UInt8[np.ndarray, "sample height width"]


@dataclass(frozen=True)
class Scores:
    """IoU per class, NaN where the class never occurs, and the mean over the scored classes."""

    per_class: Float[np.ndarray, " class"]
    mean: float


class PixelCounts:
    """Pixels per image and class: target, predicted, and both; what every IoU is made of."""

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        self._confusion: list[np.ndarray] = []

    @classmethod
    def of(cls, confusion: Int[np.ndarray, "sample class class"]) -> "PixelCounts":
        """Counts that were made elsewhere: each image's [target class, predicted class]."""
        counts = cls(confusion.shape[-1])
        counts._confusion = list(confusion)
        return counts

    def add(self, predicted: Masks, target: Masks) -> None:
        """Count a batch of masks; ids must be below num_classes."""
        if predicted.shape != target.shape:
            raise InputError(
                f"predicted masks {predicted.shape} and target masks {target.shape}",
                "equal shapes",
                "resize one of them to the label size",
            )
        top = max(predicted.max(initial=0), target.max(initial=0))
        if top >= self.num_classes:
            raise InputError(
                f"class id {top}", f"ids below {self.num_classes}", "check the label space"
            )
        for p, t in zip(predicted, target, strict=True):
            pairs = t.ravel().astype(np.int64) * self.num_classes + p.ravel()
            counts = np.bincount(pairs, minlength=self.num_classes**2)
            self._confusion.append(counts.reshape(self.num_classes, self.num_classes))

    @property
    def per_image(self) -> Int[np.ndarray, "sample class class"]:
        """Confusion matrix of every image: [target class, predicted class]."""
        empty = np.zeros((0, self.num_classes, self.num_classes), np.int64)
        return np.stack(self._confusion) if self._confusion else empty

    def intersection_union(self) -> tuple[np.ndarray, np.ndarray]:
        """Intersection and union [sample, class] in pixels."""
        return intersection_union(self.per_image)


def intersection_union(
    confusion: Int[np.ndarray, "sample class class"],
) -> tuple[np.ndarray, np.ndarray]:
    """Intersection and union [sample, class] in pixels, from the confusion matrix of each image."""
    intersection = np.diagonal(confusion, axis1=1, axis2=2)
    return intersection, confusion.sum(1) + confusion.sum(2) - intersection


def per_image_scores(intersection: np.ndarray, union: np.ndarray) -> Scores:
    """Mean of each class's IoU over the images where its union is not empty; class 0 left out.

    intersection, union [sample, class] in pixels. Source: eq (4) of the paper; the mean over
    classes skips class 0 and classes that occur in no image.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = np.where(union > 0, intersection / union, np.nan)
        per_class = np.nansum(iou, 0) / (~np.isnan(iou)).sum(0)
    return Scores(per_class, _mean(per_class[1:]))


def dataset_scores(intersection: np.ndarray, union: np.ndarray, background: bool = False) -> Scores:
    """IoU of each class from the pixel sums over all images; `background` averages class 0 too."""
    with np.errstate(invalid="ignore", divide="ignore"):
        per_class = intersection.sum(0) / union.sum(0)
    return Scores(per_class, _mean(per_class if background else per_class[1:]))


def _mean(values: np.ndarray) -> float:
    found = values[~np.isnan(values)]
    return float(found.mean()) if len(found) else float("nan")


PROTOCOLS = {"miou_per_image": per_image_scores, "miou_dataset": dataset_scores}


def miou_per_image(predicted: Masks, target: Masks, num_classes: int) -> Scores:
    """The paper's protocol (eq 4): IoU per image, mean over images, mean over classes but 0."""
    return per_image_scores(*_count(predicted, target, num_classes))


def miou_dataset(predicted: Masks, target: Masks, num_classes: int) -> Scores:
    """IoU from one confusion matrix over all pixels, mean over classes but 0."""
    return dataset_scores(*_count(predicted, target, num_classes))


def _count(predicted: Masks, target: Masks, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    counts = PixelCounts(num_classes)
    counts.add(predicted, target)
    return counts.intersection_union()


def miou_interval(
    intersection: np.ndarray, union: np.ndarray, protocol: str, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of the mean score, resampling images."""
    return percentiles(resampled_means([(intersection, union)], protocol, draws, seed)[0])


def paired_interval(
    first: tuple[np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray],
    protocol: str,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % interval of score(first) - score(second) on the same images, resampled together."""
    a, b = resampled_means([first, second], protocol, draws, seed)
    return percentiles(a - b)


def resampled_means(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], protocol: str, draws: int = DRAWS, seed: int = 0
) -> np.ndarray:
    """Mean scores [pair, draw] on images drawn with replacement, the same ones for all pairs.

    In both protocols a class scores a sum over images over another one, so a draw is how often it
    takes each image, times the terms of these sums.
    """
    times, found = times_drawn(len(pairs[0][0]), seed, draws), []
    for intersection, union in pairs:
        top, bottom = TERMS[choose("protocol", protocol, TERMS)](intersection, union)
        with np.errstate(invalid="ignore", divide="ignore"):
            scores = ((times @ top) / (times @ bottom))[:, 1:]
        known = ~np.isnan(scores)
        count = np.where(known.any(1), known.sum(1), np.nan)
        found.append(np.where(known, scores, 0).sum(1) / count)
    return np.array(found)


def _per_image_terms(intersection: np.ndarray, union: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    shown = union > 0
    return np.where(shown, intersection / np.maximum(union, 1), 0), shown


def _dataset_terms(intersection: np.ndarray, union: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return intersection, union


TERMS = {"miou_per_image": _per_image_terms, "miou_dataset": _dataset_terms}


def summary(counts: PixelCounts, classes: Sequence[str]) -> dict:
    """Both protocols as a JSON value in percent: mean, 95 % interval and IoU per class."""
    intersection, union = counts.intersection_union()
    result: dict = {"images": len(intersection)}
    for name, score in PROTOCOLS.items():
        scores = score(intersection, union)
        low, high = miou_interval(intersection, union, name)
        result[name] = {
            "mean": _percent(scores.mean),
            "low": _percent(low),
            "high": _percent(high),
            "per_class": {c: _percent(v) for c, v in zip(classes, scores.per_class, strict=True)},
        }
    confusion = counts.per_image.sum(0)
    result["pixel_accuracy"] = _percent(np.trace(confusion) / max(confusion.sum(), 1))
    return result


def _percent(value: float) -> float | None:
    return None if np.isnan(value) else round(100 * float(value), 3)


def percent(mean: float, low: float, high: float) -> dict[str, float | None]:
    """A share and its interval as a JSON value in percent."""
    return {"mean": _percent(mean), "low": _percent(low), "high": _percent(high)}
