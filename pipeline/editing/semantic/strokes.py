"""The color edit of an image: the baseline that needs no segmentation network in the loop."""

import numpy as np
from jaxtyping import Float, UInt8

from pipeline.editing.semantic.edits import Target
from pipeline.editing.semantic.shapes import Mask


def stroke_colors(
    image: UInt8[np.ndarray, "3 height width"],
    own: Mask,
    target: Target,
    means: Float[np.ndarray, "class 3"],  # for classes that the sample lacks
) -> UInt8[np.ndarray, "3 height width"]:
    """The color edit of an image: each region pixel has the mean color of its target class.

    The mean is over the sample's own pixels of that class if it has any, else `means`.
    """
    painted = image.copy()
    for label in np.unique(target.mask[target.region]):
        theirs = own == label
        color = image[:, theirs].mean(1) if theirs.any() else means[label]
        chosen = target.region & (target.mask == label)
        painted[:, chosen] = np.round(color).astype(np.uint8)[:, None]
    return painted


def class_colors(
    images: UInt8[np.ndarray, "sample 3 height width"],
    masks: UInt8[np.ndarray, "sample height width"],
    num_classes: int,
) -> Float[np.ndarray, "class 3"]:
    """Mean color of every class over the samples, 0-255; of a class never seen, that of all."""
    pixels, labels = np.moveaxis(images, 1, -1).reshape(-1, 3), masks.ravel()
    counts = np.bincount(labels, minlength=num_classes)
    sums = [np.bincount(labels, pixels[:, i], num_classes) for i in range(3)]
    means = np.stack(sums, 1) / np.maximum(counts, 1)[:, None]
    means[counts == 0] = pixels.mean(0)
    return means
