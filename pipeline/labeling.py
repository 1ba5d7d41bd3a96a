"""Masks from a teacher, labeled in worker processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline import workers
from pipeline.arrays import Group
from pipeline.errors import InputError
from pipeline.images import to_float
from pipeline.teachers import Teacher, load_teacher

BATCH = 16


@dataclass(frozen=True)
class LabelTask:
    """Images [start, stop) of a split for a teacher to label."""

    teacher: str
    labels: str
    images: str
    split: str
    start: int
    stop: int
    device: str
    keep: tuple[str, ...] | None = None


@lru_cache(maxsize=1)
def _teacher(path: str, labels: str, device: str, keep: tuple[str, ...] | None) -> Teacher:
    return load_teacher(path, labels, device, keep)


def _label(task: LabelTask) -> np.ndarray:
    images = Group(task.images).read(task.split, "images", slice(task.start, task.stop))
    teacher = _teacher(task.teacher, task.labels, task.device, task.keep)
    return teacher.label(to_float(images), images.shape[-1])


def label_images(
    teacher: str,  # weights of a teacher
    labels: str,  # name of a label space
    images: str,  # zarr group with <split>/images
    splits: Sequence[str],
    device: str = "cpu",
    num_workers: int = 0,
    keep: Sequence[str] | None = None,  # selected classes of `labels`; None: all
) -> dict[str, np.ndarray]:
    """The teacher's masks {`split/masks`: [N, S, S] uint8} at the images' own size."""
    sizes = Group(images).splits
    if empty := [split for split in splits if not sizes.get(split)]:
        raise InputError(
            f"no images in {empty[0]} of {images}", "at least one", f"raise the size of {empty[0]}"
        )
    kept = None if keep is None else tuple(keep)
    tasks = [
        LabelTask(
            teacher, labels, images, split, start, min(start + BATCH, sizes[split]), device, kept
        )
        for split in splits
        for start in range(0, sizes[split], BATCH)
    ]
    processes = workers.count(num_workers, device, len(tasks))
    masks = workers.run(_label, tasks, "labeling", processes)
    found: dict[str, list[np.ndarray]] = {split: [] for split in splits}
    for task, mask in zip(tasks, masks, strict=True):
        found[task.split].append(mask)
    return {f"{split}/masks": np.concatenate(parts) for split, parts in found.items() if parts}
