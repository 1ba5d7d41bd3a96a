"""Scores of a network in training: pixels of held-out pairs, in any label space of its classes."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.data.palette import UNLABELED
from pipeline.metrics.iou import PixelCounts, dataset_scores, summary
from pipeline.runtime.devices import channels_last
from pipeline.teachers.faces import Pairs
from pipeline.teachers.labels import LabelSpace
from pipeline.teachers.registry import INPUT_SIZE, Teacher


def count_pixels(
    network_class: type,
    state: dict[str, Tensor],
    labels: LabelSpace,  # the classes that are scored
    pairs: Pairs,
    device: torch.device,
    through: int | None = None,  # px that the images are shrunk to first
) -> PixelCounts:
    """Count held-out pixels; those without a label do not count."""
    network = network_class(len(labels.merge))
    network.load_state_dict(state)
    teacher = Teacher(channels_last(network), labels).to(device)
    num = len(labels.classes)
    counts = PixelCounts(num + 1)  # the last one: no label
    for start in range(0, len(pairs.images), 10):
        images = pairs.images[start : start + 10].float() / 127.5 - 1
        if through:
            images = F.interpolate(images, (through, through), mode="area")
        masks = pairs.masks[start : start + 10].numpy()
        unlabeled = masks == UNLABELED
        target = labels.merge_ids(np.where(unlabeled, 0, masks))
        wanted = np.where(unlabeled, np.uint8(num), target)
        counts.add(teacher.label(images, INPUT_SIZE), wanted)
    return PixelCounts.of(counts.per_image[:, :num, :num])


def report(counts: PixelCounts, labels: LabelSpace) -> dict:
    """Scores in both protocols, with intervals."""
    result = summary(counts, labels.classes)
    return result | {"miou_dataset_with_background": round(100 * mean(counts), 3)}


def mean(counts: PixelCounts) -> float:
    """`miou_dataset`, background included."""
    return dataset_scores(*counts.intersection_union(), background=True).mean
