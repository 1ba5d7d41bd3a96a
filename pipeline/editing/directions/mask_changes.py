"""What an edit changes, told from masks and colors alone: no attribute classifier, no person.

Arrays are [sample, class, ...]; NaN stands where a class is not seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from pipeline.metrics.iou import PixelCounts

Masks = UInt8[np.ndarray, "sample height width"]
PerClass = Float[np.ndarray, "sample class"]

# What a face consists of, for its pose; hair and ears come and go.
FACE: tuple[str, ...] = ("skin", "nose", "eye_g", "eye", "l_eye", "r_eye")
FACE += ("brow", "l_brow", "r_brow", "mouth", "u_lip", "l_lip")


def areas(masks: Masks, num_classes: int) -> PerClass:
    """Share of the image's pixels of each class."""
    counts = [np.bincount(mask.ravel(), minlength=num_classes) for mask in masks]
    return np.stack(counts) / masks[0].size


def centroids(masks: Masks, num_classes: int) -> Float[np.ndarray, "sample class 2"]:
    """Mean row and column of each class's pixels, px."""
    places = np.indices(masks.shape[1:]).reshape(2, -1)
    found = np.full((len(masks), num_classes, 2), np.nan)
    for one, mask in zip(found, masks, strict=True):
        counts = np.bincount(mask.ravel(), minlength=num_classes)
        for axis, values in enumerate(places):
            sums = np.bincount(mask.ravel(), values, num_classes)
            np.divide(sums, counts, out=one[:, axis], where=counts > 0)
    return found


def ious(masks: Masks, others: Masks, num_classes: int) -> PerClass:
    """IoU of each class in two masks of a sample; NaN where neither shows it."""
    counts = PixelCounts(num_classes)
    counts.add(masks, others)
    intersection, union = counts.intersection_union()
    found = np.full(union.shape, np.nan)
    return np.divide(intersection, union, out=found, where=union > 0)


def structure_change(masks: Masks, others: Masks, num_classes: int) -> Float[np.ndarray, " sample"]:
    """1 - the mean over classes of the IoU of two masks."""
    return 1 - mean_seen(ious(masks, others, num_classes), 1)


def colors(
    lab: Float[np.ndarray, "sample 3 height width"], masks: Masks, num_classes: int
) -> Float[np.ndarray, "sample class 3"]:
    """Mean L*, a*, b* of each class's pixels."""
    found = np.full((len(masks), num_classes, 3), np.nan)
    for one, mask, picture in zip(found, masks, lab, strict=True):
        counts = np.bincount(mask.ravel(), minlength=num_classes)
        for axis, values in enumerate(picture):
            sums = np.bincount(mask.ravel(), values.ravel(), num_classes)
            np.divide(sums, counts, out=one[:, axis], where=counts > 0)
    return found


def poses(masks: Masks, classes: Sequence[str]) -> Float[np.ndarray, "sample 2"]:
    """The nose's centroid relative to the face's, down and right, in square roots of its area."""
    if "nose" not in classes:
        return np.full((len(masks), 2), np.nan)
    parts = np.isin(np.arange(len(classes)), [i for i, c in enumerate(classes) if c in FACE])
    face = parts[masks].astype(np.uint8)
    nose = centroids(masks, len(classes))[:, classes.index("nose")]
    side = np.sqrt(areas(face, 2)[:, 1:] * face[0].size)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (nose - centroids(face, 2)[:, 1]) / side


@dataclass(frozen=True)
class Seen:
    """What is kept of some images: masks as statistics, colors where there are images."""

    masks: Masks
    lab: Float[np.ndarray, "image 3 height width"]  # of the first samples only

    def statistics(self, classes: Sequence[str]) -> Float[np.ndarray, "sample statistic"]:
        """Every sample's numbers, in the order of `statistic_names`.

        Colors are in CIELAB, NaN for a sample without an image; places are shares of the side.
        Both are NaN for a class of a few pixels, whose place and color are noise.
        """
        num, size = len(classes), self.masks.shape[-1]
        share = areas(self.masks, num)[..., None]
        shown = np.full((len(self.masks), num, 3), np.nan)
        shown[: len(self.lab)] = colors(self.lab, self.masks[: len(self.lab)], num)
        where = centroids(self.masks, num) / size
        seen = np.where(share < SMALL, np.nan, np.concatenate([where, shown], 2))
        by_class = np.concatenate([share, seen], 2).swapaxes(1, 2).reshape(len(self.masks), -1)
        return np.concatenate([by_class, poses(self.masks, classes)], 1)


KINDS = ("area", "down", "right", "lightness", "redness", "yellowness")
SMALL = 0.002  # of the image's pixels
NAMELESS = "nothing beyond chance"
POSES = ("nose down", "nose right")  # of the face's center


def statistic_names(classes: Sequence[str]) -> list[str]:
    """hair area, ..., hair down, ..., face: nose down, face: nose right."""
    return [f"{c} {kind}" for kind in KINDS for c in classes] + [f"face: {pose}" for pose in POSES]


def mean_seen(values: Float[np.ndarray, "..."], axis: int) -> Float[np.ndarray, "..."]:
    """Mean along an axis of what is not NaN; NaN where all is."""
    seen = ~np.isnan(values)
    count = seen.sum(axis)
    total = np.where(seen, values, 0).sum(axis)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def z_scores(
    effects: Float[np.ndarray, "direction statistic"],
    control: Float[np.ndarray, "random statistic"],
) -> Float[np.ndarray, "direction statistic"]:
    """Effects in standard deviations of those of random directions, about their mean.

    NaN where random directions show no spread: nothing to compare with.
    """
    mean, seen = mean_seen(control, 0), (~np.isnan(control)).sum(0)
    squares = mean_seen((control - mean) ** 2, 0) * seen / np.maximum(seen - 1, 1)
    spread = np.where((seen > 1) & (squares > 1e-20), np.sqrt(squares), np.nan)
    return (effects - mean) / spread


def selectivity(scores: Float[np.ndarray, "direction class"]) -> Float[np.ndarray, " direction"]:
    """1 - entropy / ln C of the magnitudes of z over C classes: 1 for one class, 0 for all alike.

    Classes that are NaN in every direction do not count; a direction without effect is NaN.
    """
    size = np.abs(scores[:, ~np.isnan(scores).all(0)])
    size = np.where(np.isnan(size), 0, size)
    total = size.sum(1, keepdims=True)
    p = np.divide(size, total, out=np.zeros(size.shape), where=total > 0)
    entropy = -(p * np.log(np.where(p > 0, p, 1))).sum(1)
    return np.where(total[:, 0] > 0, 1 - entropy / np.log(max(size.shape[1], 2)), np.nan)


def overall_selectivity(scores: Float[np.ndarray, "direction class"]) -> float:
    """Mean selectivity, each direction by the sum of its magnitudes."""
    weights = np.where(np.isnan(scores), 0, np.abs(scores)).sum(1)
    found = selectivity(scores)
    known = ~np.isnan(found)
    return float(np.average(found[known], weights=weights[known])) if known.any() else float("nan")


def name_of(
    scores: Float[np.ndarray, " statistic"],
    sure: Float[np.ndarray, " statistic"],  # the end of each score's interval that is nearer to 0
    names: Sequence[str],
    chance: float,  # the largest magnitude that a random direction rarely exceeds
) -> tuple[str, int]:
    """`hair area +, 4.1 sd` and its index: of the scores beyond chance, the surest; or none.

    An effect of a single sample may be large, but is not sure.
    """
    size = np.where(np.isnan(scores), 0, np.abs(scores))
    index = int(np.where(size > chance, sure, 0).argmax())
    if size[index] <= chance or sure[index] <= 0:
        return NAMELESS, int(size.argmax())
    return f"{names[index]} {'+' if scores[index] > 0 else '-'}, {size[index]:.1f} sd", index
