"""Algorithm 1 of Xu & Zheng (CVPR 2021) on samples synthesized anew: figure 9's cosines.

Pixels of all taps; images, classes and pixels are chosen on the masks before any work.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.analysis.geometry import centers as geometry
from pipeline.analysis.geometry.options import Settings
from pipeline.data.arrays import Group
from pipeline.data.features import Source, stream
from pipeline.data.inputs import Study
from pipeline.data.pixels import hypercolumns
from pipeline.generators.taps import Tap
from pipeline.metrics.iou import percent
from pipeline.runtime import workers
from pipeline.runtime.errors import InputError

SCALES = ("raw", "scaled")  # features as they are, or each channel over its root mean square
IMAGES_A_TASK = 4


@dataclass(frozen=True)
class FairTask:
    """Images of the training split to draw pixels from."""

    source: Source
    masks: str
    taps: tuple[Tap, ...]
    align_corners: bool
    draws: tuple[geometry.Draw, ...]
    pixels: int
    scale: np.ndarray  # root mean square of each channel
    num_classes: int


def _fair_sums(task: FairTask) -> np.ndarray:
    """Sums of unit vectors [image, kind of SCALES, class, channel]."""
    shape = (len(task.draws), len(SCALES), task.num_classes, len(task.scale))
    found = np.zeros(shape, np.float32)
    masks = Group(task.masks)
    seeds = Group(task.source.latents).read("train", "seeds")
    for sums, draw in zip(found, task.draws, strict=True):
        rows = slice(draw.row, draw.row + 1)
        mask = masks.read("train", "masks", rows)[0]
        places = geometry.fair_places(mask, draw, task.pixels, int(seeds[draw.row]))
        features, _ = next(stream(task.source, "train", rows.start, rows.stop, task.taps))
        sample = [features[tap.name][0] for tap in task.taps]
        columns = hypercolumns(sample, places.ravel(), len(mask), task.align_corners)
        x = columns.float().cpu().numpy()
        classes = np.repeat(draw.classes, task.pixels)
        ones = np.ones(len(x), x.dtype)
        sums[0] = geometry.unit_sums(x, classes, ones, task.num_classes)[0]
        sums[1] = geometry.unit_sums(x / task.scale, classes, ones, task.num_classes)[0]
    return found


def fair_similarity(
    study: Study,
    scale: np.ndarray,  # root mean square of each channel
    settings: Settings,  # T1 of algorithm 1 is fair_pixels, T2 fair_pool
    num_workers: int,
) -> dict:
    """Class x class mean cosines (fig 9), all pairs and pairs of two images, and pool sizes."""
    num, pixels = len(study.classes), settings.fair_pixels
    masks = Group(study.masks).read("train", "masks")
    areas = np.stack([np.bincount(mask.ravel(), minlength=num) for mask in masks])
    plan = geometry.fair_plan(areas, pixels, settings.fair_pool, settings.fair_images)
    if not plan:
        raise InputError(
            f"no training image with {pixels} pixels of a class",
            "at least one",
            "lower fair_pixels, or sample a training split",
        )
    parts = [plan[i : i + IMAGES_A_TASK] for i in range(0, len(plan), IMAGES_A_TASK)]
    tasks = [
        FairTask(
            study.source,
            study.masks,
            study.taps,
            study.align_corners,
            tuple(part),
            pixels,
            scale,
            num,
        )
        for part in parts
    ]
    processes = workers.count(num_workers, study.source.device, len(tasks))
    sums = np.concatenate(list(workers.run(_fair_sums, tasks, "fair sampling", processes)))
    counts = np.zeros((len(plan), num))
    for row, draw in zip(counts, plan, strict=True):
        row[list(draw.classes)] = pixels
    pools = {name: int(n) for name, n in zip(study.classes, counts.sum(0), strict=True)}
    report: dict = {"images": len(plan), "pool": settings.fair_pool, "pools": pools}
    report["classes"] = list(study.classes)
    for index, kind in enumerate(SCALES):
        similarity = geometry.Similarity(sums[:, index], counts)
        report[kind] = {"cosines": _rounded(similarity.matrix())}
        report[kind]["cosines_across_images"] = _rounded(similarity.matrix(across=True))
        for name, across in (("own_is_maximum", False), ("own_is_maximum_across_images", True)):
            report[kind][name] = percent(*similarity.share_of_maxima(across, seed=settings.seed))
    return report


def _rounded(matrix: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(v) else round(float(v), 4) for v in row] for row in matrix]
