"""How well samples agree with the masks they were asked for (Xu & Zheng, appendix H, eq 7).

Arrays are [target, sample, class]; intervals resample targets with all of their samples.
"""

import numpy as np
from jaxtyping import Float, Int, UInt8

from pipeline.metrics.bootstrap import interval_of_mean
from pipeline.metrics.iou import PixelCounts, per_image_scores

Counts = Int[np.ndarray, "target sample class"]
PerTarget = Float[np.ndarray, " target"]


def count(
    masks: UInt8[np.ndarray, "target sample size size"],
    targets: UInt8[np.ndarray, "target size size"],
    num_classes: int,
) -> tuple[Counts, Counts]:
    """Intersection and union in pixels of every sample's mask with its target."""
    num, samples = masks.shape[:2]
    counts = PixelCounts(num_classes)
    counts.add(masks.reshape(-1, *masks.shape[2:]), targets.repeat(samples, 0))
    intersection, union = counts.intersection_union()
    shape = num, samples, num_classes
    return intersection.reshape(shape), union.reshape(shape)


def agreement_eq7(intersection: Counts, union: Counts) -> Float[np.ndarray, "target sample"]:
    """Per sample: mean IoU over the classes, but 0, that its mask or the target shows."""
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = np.where(union > 0, intersection / union, np.nan)[..., 1:]
    shown = ~np.isnan(iou)
    return np.where(shown, iou, 0).sum(-1) / shown.sum(-1).clip(1)


def agreement_class_mean(intersection: Counts, union: Counts) -> float:
    """The reference's order: per class over all samples first, then over the classes but 0."""
    return per_image_scores(*(x.reshape(-1, x.shape[-1]) for x in (intersection, union))).mean


def per_class(intersection: Counts, union: Counts) -> Float[np.ndarray, " class"]:
    """IoU of each class, mean over the samples that show it or should; NaN where none does."""
    return per_image_scores(*(x.reshape(-1, x.shape[-1]) for x in (intersection, union))).per_class


def summary(values: PerTarget) -> dict:
    """Mean over targets and its interval, in percent."""
    numbers = float(values.mean()), *interval_of_mean(values)
    return {
        name: round(100 * v, 3) for name, v in zip(("mean", "low", "high"), numbers, strict=True)
    }
