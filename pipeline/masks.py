"""Masks from teachers and from extractors, in worker processes where that helps."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline import workers
from pipeline.arrays import Group
from pipeline.extractors import LSE, load_extractor
from pipeline.features import Source, stream, to_float
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


@lru_cache(maxsize=1)
def _teacher(path: str, labels: str, device: str) -> Teacher:
    return load_teacher(path, labels, device)


def _label(task: LabelTask) -> np.ndarray:
    images = Group(task.images).read(task.split, "images", slice(task.start, task.stop))
    teacher = _teacher(task.teacher, task.labels, task.device)
    return teacher.label(to_float(images), images.shape[-1])


def label_images(
    teacher: str,  # weights of a teacher
    labels: str,  # name of a label space
    images: str,  # zarr group with <split>/images
    splits: Sequence[str],
    device: str = "cpu",
    num_workers: int = 0,
) -> dict[str, np.ndarray]:
    """The teacher's masks {`split/masks`: [N, S, S] uint8} at the images' own size."""
    sizes = Group(images).splits
    tasks = [
        LabelTask(teacher, labels, images, split, start, min(start + BATCH, sizes[split]), device)
        for split in splits
        for start in range(0, sizes[split], BATCH)
    ]
    processes = workers.count(num_workers, device, len(tasks))
    masks = workers.run(_label, tasks, "labeling", processes)
    found: dict[str, list[np.ndarray]] = {split: [] for split in splits}
    for task, mask in zip(tasks, masks, strict=True):
        found[task.split].append(mask)
    return {f"{split}/masks": np.concatenate(parts) for split, parts in found.items() if parts}


@dataclass(frozen=True)
class PredictTask:
    """Samples [start, stop) of a split for an extractor to segment while they are synthesised."""

    extractor: str
    source: Source
    split: str
    start: int
    stop: int
    size: int


@lru_cache(maxsize=1)
def _extractor(path: str, device: str) -> LSE:
    return load_extractor(path, device)


def _predict(task: PredictTask) -> np.ndarray:
    extractor = _extractor(task.extractor, task.source.device)
    parts = stream(task.source, task.split, task.start, task.stop, extractor.taps)
    return np.concatenate([extractor.predict(features, task.size) for features, _ in parts])


def predict_masks(
    extractor: str,  # a fitted extractor
    source: Source,
    split: str,
    size: int,  # label size in px
    num_workers: int = 0,
) -> np.ndarray:
    """The extractor's masks [N, size, size] of a split; features are streamed, never stored."""
    total = Group(source.latents).splits[split]
    step = max(BATCH, source.batch_size)
    tasks = [
        PredictTask(extractor, source, split, start, min(start + step, total), size)
        for start in range(0, total, step)
    ]
    processes = workers.count(num_workers, source.device, len(tasks))
    return np.concatenate(list(workers.run(_predict, tasks, f"segmenting {split}", processes)))
