"""Masks from an extractor, while the features stream by: nothing is stored."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline import workers
from pipeline.arrays import Group
from pipeline.errors import InputError
from pipeline.extractors import Extractor, load_extractor
from pipeline.features import Source, stream

BATCH = 16


@dataclass(frozen=True)
class PredictTask:
    """Samples [start, stop) of a split for an extractor to segment while they are synthesized."""

    extractor: str
    source: Source
    split: str
    start: int
    stop: int
    size: int


@lru_cache(maxsize=1)
def _extractor(path: str, device: str) -> Extractor:
    return load_extractor(path, device)


def _predict(task: PredictTask) -> np.ndarray:
    extractor = _extractor(task.extractor, task.source.device)
    parts = stream(task.source, task.split, task.start, task.stop, extractor.taps)
    return np.concatenate([extractor.predict(features, task.size) for features, _ in parts])


def check_extractor(extractor: str, source: Source, classes: Sequence[str] | None) -> None:
    """InputError if the file reads taps that the generator lacks, or has other classes."""
    loaded, taps = load_extractor(extractor), source.generator().taps
    if missing := [tap.name for tap in loaded.taps if tap not in taps]:
        raise InputError(
            f"{extractor}, which reads tap {missing[0]}",
            f"an extractor of this generator, whose taps are {', '.join(t.name for t in taps)}",
            "name an extractor of the same study, or fit one",
        )
    if classes is not None and list(classes) != list(loaded.classes):
        raise InputError(
            f"{extractor} with classes {', '.join(loaded.classes)}",
            f"those of the masks: {', '.join(classes)}",
            "fit the extractor on these masks",
        )


def predict_masks(
    extractor: str,  # a fitted extractor
    source: Source,
    split: str,
    size: int,  # label size in px
    num_workers: int = 0,
    classes: Sequence[str] | None = None,  # that the masks must have; None: any
) -> np.ndarray:
    """The extractor's masks [N, size, size] of a split; features are streamed, never stored."""
    check_extractor(extractor, source, classes)
    total = Group(source.latents).splits[split]
    step = max(BATCH, source.batch_size)
    tasks = [
        PredictTask(extractor, source, split, start, min(start + step, total), size)
        for start in range(0, total, step)
    ]
    processes = workers.count(num_workers, source.device, len(tasks))
    return np.concatenate(list(workers.run(_predict, tasks, f"segmenting {split}", processes)))
