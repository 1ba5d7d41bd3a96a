"""Masks from a teacher, labeled in worker processes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8

from pipeline.data.arrays import Group
from pipeline.data.images import to_float
from pipeline.runtime import workers
from pipeline.runtime.errors import InputError
from pipeline.teachers.registry import Teacher, load_teachers

BATCH = 16

Masks = UInt8[np.ndarray, "sample size size"]


@dataclass(frozen=True)
class Job:
    """Which network labels which images, read in which label spaces."""

    teacher: str  # weights, or a folder
    labels: tuple[str, ...]  # label spaces: a mask of each, from one pass of the network
    images: str  # zarr group with <split>/images
    device: str = "cpu"
    keep: tuple[str, ...] | None = None  # selected classes; None: all


@dataclass(frozen=True)
class LabelTask:
    """Rows of a split to label."""

    job: Job
    split: str
    rows: tuple[int, ...]


@lru_cache(maxsize=1)
def _teachers(job: Job) -> list[Teacher]:
    return load_teachers(job.teacher, job.labels, job.device, job.keep)


def _label(task: LabelTask) -> list[Masks]:
    """The masks of a task, in each label space."""
    import torch

    first, last = task.rows[0], task.rows[-1] + 1
    images = Group(task.job.images).read(task.split, "images", slice(first, last))
    images = images[np.array(task.rows) - first]
    teachers = _teachers(task.job)
    with torch.inference_mode():
        logits = teachers[0].network_logits(to_float(images), images.shape[-1])
        return [teacher.masks(logits) for teacher in teachers]


def label_rows(
    job: Job,
    rows: Mapping[str, Sequence[int]],  # of each split, ascending
    num_workers: int = 0,
) -> list[dict[str, Masks]]:
    """For each label space, masks {split: [rows, S, S]} at the images' own size."""
    tasks = [
        LabelTask(job, split, tuple(wanted[start : start + BATCH]))
        for split, wanted in rows.items()
        for start in range(0, len(wanted), BATCH)
    ]
    processes = workers.count(num_workers, job.device, len(tasks) or 1)
    done = list(workers.run(_label, tasks, "labeling", processes))
    found: list[dict[str, Masks]] = []
    for space in range(len(job.labels)):
        parts: dict[str, list[Masks]] = {}
        for task, masks in zip(tasks, done, strict=True):
            parts.setdefault(task.split, []).append(masks[space])
        found.append({split: np.concatenate(some) for split, some in parts.items()})
    return found


def label_images(
    job: Job, splits: Sequence[str], num_workers: int = 0
) -> list[dict[str, np.ndarray]]:
    """For each label space, masks {`split/masks`: [N, S, S] uint8} of whole splits."""
    sizes = Group(job.images).splits
    if empty := [split for split in splits if not sizes.get(split)]:
        raise InputError(
            f"no images in {empty[0]} of {job.images}",
            "at least one",
            f"raise the size of {empty[0]}",
        )
    found = label_rows(job, {split: range(sizes[split]) for split in splits}, num_workers)
    return [{f"{split}/masks": masks[split] for split in splits} for masks in found]


def label_selected(
    job: Job,  # with the full list's label space
    full: Group,  # its masks
    kept: Sequence[str],  # classes of the list to keep, besides class 0
    num_workers: int = 0,
) -> dict[str, np.ndarray]:
    """Masks {`split/masks`: [N, S, S] uint8} of the kept classes alone.

    Without a class, a pixel that another one had won stays as it is: only images that show a
    dropped class are labeled again.
    """
    names = full.attributes["classes"]
    order = [names[0], *(name for name in names[1:] if name in kept)]
    dropped = [i for i, name in enumerate(names) if name not in order]
    ids = np.array([order.index(name) if name in order else 0 for name in names], np.uint8)
    arrays, again = {}, {}
    for split in full.splits:
        masks = full.read(split, "masks")
        arrays[f"{split}/masks"] = ids[masks]
        again[split] = np.flatnonzero(np.isin(masks, dropped).any((1, 2))).tolist()
    selected = Job(job.teacher, job.labels, job.images, job.device, tuple(kept))
    (relabeled,) = label_rows(selected, again, num_workers)
    for split, masks in relabeled.items():
        arrays[f"{split}/masks"][again[split]] = masks
    return arrays
