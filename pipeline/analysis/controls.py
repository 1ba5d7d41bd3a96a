"""Controls of the LSE: the same linear classifier on features that no generator has learned.

What a generator's features contribute to table 1 of Xu & Zheng (CVPR 2021) is what the LSE scores
above these. Pixels, weights, L2 candidates, validation rule and test samples are the LSE's own;
features stream by and only the sampled pixels are kept, in memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.analysis.control_features import (
    Features,
    GeneratorFeatures,
    ImageFeatures,
    Reinitialized,
    image_size,
)
from pipeline.analysis.options import Settings
from pipeline.data.arrays import Group
from pipeline.data.features import Source
from pipeline.data.pixels import hypercolumns
from pipeline.data.stores import Store
from pipeline.extractors import problems
from pipeline.extractors.fitting import RELIABLE, Choice, Columns, choose_fit
from pipeline.extractors.networks import LSE
from pipeline.metrics.iou import PROTOCOLS, PixelCounts, paired_interval, summary
from pipeline.runtime import workers
from pipeline.runtime.costs import timed
from pipeline.runtime.errors import InputError, choose
from pipeline.runtime.progress import say

BATCH = 16  # samples a task


@dataclass(frozen=True)
class Control:
    """Which features, and whether the classifier has a bias.

    Coordinates, colors and the encoder have no origin that would make a class a cone, so they get
    one; the generator's features are read as the LSE reads them, without.
    """

    parts: tuple[str, ...] = ()  # of the image; none: the redrawn generator's taps
    bias: bool = True


CONTROLS = {
    "rgb": Control(("rgb",)),
    "fourier": Control(("fourier",)),
    "fourier_rgb": Control(("fourier", "rgb")),
    "random_conv": Control(("fourier", "rgb", "encoder")),
    "reinitialized": Control(bias=False),
}


@dataclass(frozen=True)
class Study:
    """What the LSE was fitted and tested on; the controls read the same."""

    source: Source
    images: str  # zarr group with <split>/images at label size
    pixels: Store  # of kind pixels: only places, classes and weights are read

    @property
    def size(self) -> int:
        """Label size, px."""
        return image_size(self.images)

    def features(self, name: str, seed: int) -> Features:
        """The feature source of a control."""
        control = CONTROLS[choose("control", name, CONTROLS)]
        if control.parts:
            return ImageFeatures(self.images, control.parts, seed, self.source.device)
        return GeneratorFeatures(Reinitialized(**vars(self.source), seed=seed))


@dataclass(frozen=True)
class SampleTask:
    """Samples [start, stop) whose features are read at `places` [stop - start, pixel]."""

    features: Features
    split: str
    start: int
    stop: int
    places: np.ndarray
    size: int
    align_corners: bool


def _sample(task: SampleTask) -> np.ndarray:
    places, found = iter(task.places), []
    names = [tap.name for tap in task.features.taps]
    for maps in task.features.maps(task.split, task.start, task.stop):
        for i in range(len(maps[names[0]])):
            sample = [maps[name][i] for name in names]
            columns = hypercolumns(sample, next(places), task.size, task.align_corners)
            found.append(columns.to(problems.STORED).cpu())
    return torch.cat(found).view(torch.uint8).numpy()  # numpy lacks bfloat16


def sample_columns(
    study: Study, features: Features, split: str, pixel_budget: int, num_workers: int
) -> Columns:
    """Features at the pixels that the LSE reads: of each sample the same share of its draws."""
    total, stored = study.pixels.plan.splits[split], study.pixels.plan.facts["pixels_per_sample"]
    if total == 0:
        raise InputError(f"no samples in {split}", "at least one", f"raise the size of {split}")
    share = max(1, min(stored, pixel_budget // total))
    keep = np.linspace(0, stored, share, endpoint=False).astype(int)
    drawn = study.pixels.read(split, slice(None), ("places", "classes", "weights"))
    drawn = {name: values[:, keep] for name, values in drawn.items()}
    device, align = study.source.device, study.pixels.plan.facts["align_corners"]
    tasks = [
        SampleTask(features, split, i, j, drawn["places"][i:j], study.size, align)
        for i, j in _blocks(total)
    ]
    channels = sum(tap.channels for tap in features.taps)
    x, done = torch.empty(total * share, channels, dtype=problems.STORED, device=device), 0
    processes = workers.count(num_workers, device, len(tasks))
    for part in workers.run(_sample, tasks, f"sampling {split}", processes):
        x[done : done + len(part)] = torch.from_numpy(part).view(x.dtype).to(device)
        done += len(part)
    classes, weights = (torch.from_numpy(drawn[k].ravel()) for k in ("classes", "weights"))
    return Columns(x, classes.long().to(device), weights.to(device))


def _blocks(total: int) -> list[tuple[int, int]]:
    return [(start, min(start + BATCH, total)) for start in range(0, total, BATCH)]


def fit_control(
    train: Columns, held: Columns, num_classes: int, settings: Settings, bias: bool, samples: int
) -> Choice:
    """By the rule of fit_lse."""
    data = problems.problem(train.x, train.y, train.weights, num_classes, bias)
    return choose_fit(data, held, settings.l2, settings.iterations, samples >= RELIABLE)


@dataclass(frozen=True)
class PredictTask:
    """Samples [start, stop) to segment by a fitted control."""

    features: Features
    matrix: np.ndarray
    bias: np.ndarray | None
    split: str
    start: int
    stop: int
    size: int
    align_corners: bool
    device: str


def _predict(task: PredictTask) -> np.ndarray:
    classes = [str(k) for k in range(task.matrix.shape[1])]
    lse = LSE(classes, task.features.taps, task.bias is not None, task.align_corners)
    bias = None if task.bias is None else torch.from_numpy(task.bias)
    lse.set_matrix(torch.from_numpy(task.matrix), bias)
    lse = lse.to(task.device)
    parts = task.features.maps(task.split, task.start, task.stop)
    return np.concatenate([lse.predict(maps, task.size) for maps in parts])


def predict_control(
    study: Study, features: Features, fitted: Choice, split: str, num_workers: int
) -> np.ndarray:
    """Masks [N, size, size] of a split, while its features stream by."""
    matrix = fitted.matrix.cpu().numpy()
    bias = None if fitted.bias is None else fitted.bias.cpu().numpy()
    device, align = study.source.device, study.pixels.plan.facts["align_corners"]
    tasks = [
        PredictTask(features, matrix, bias, split, i, j, study.size, align, device)
        for i, j in _blocks(Group(study.images).splits[split])
    ]
    processes = workers.count(num_workers, device, len(tasks))
    return np.concatenate(list(workers.run(_predict, tasks, f"segmenting {split}", processes)))


def run_control(
    name: str, study: Study, settings: Settings, num_workers: int = 0
) -> tuple[np.ndarray, dict]:
    """Fit a control as the LSE was fitted; its masks of the test split, and the fit's facts."""
    bias = CONTROLS[choose("control", name, CONTROLS)].bias
    features, facts = study.features(name, settings.seed), study.pixels.plan.facts
    train, held = (
        sample_columns(study, features, split, budget, num_workers)
        for split, budget in (
            ("train", settings.pixel_budget),
            ("validation", settings.pixel_budget // 4),
        )
    )
    samples = study.pixels.plan.splits["train"]
    fitted = fit_control(train, held, facts["num_classes"], settings, bias, samples)
    pixels, channels = train.x.shape
    del train, held  # the test split needs the memory
    masks = predict_control(study, features, fitted, "test", num_workers)
    say(f"{name}: L2 {fitted.l2} at iteration {fitted.iteration}: {100 * fitted.miou:.2f}")
    return masks, {
        "l2": fitted.l2,
        "iteration": fitted.iteration,
        "validation_pixels_miou": round(100 * fitted.miou, 3),
        "bias": bias,
        "channels": channels,
        "parameters": fitted.matrix.numel() + (facts["num_classes"] if bias else 0),
        "pixels": pixels,
    }


def measure_controls(
    study: Study,
    settings: Settings,
    predicted: np.ndarray,  # the LSE's masks of the test split
    targets: Mapping[str, np.ndarray],  # masks of the test split, by who drew them
    num_workers: int = 0,
) -> tuple[dict, dict]:
    """Every control's scores against each target, and how far the LSE is above it; the costs.

    `lse_minus_control` holds, per target and protocol, the difference in points of mIoU and its
    95 % interval over images resampled in pairs.
    """
    for name in settings.controls:  # before any work
        choose("control", name, CONTROLS)
    classes = study.pixels.plan.facts["classes"]
    lse = {who: _counts(predicted, masks, len(classes)) for who, masks in targets.items()}
    costs: dict = {}
    report: dict = {"lse": {f"against_{who}": summary(lse[who], classes) for who in targets}}
    for name in settings.controls:
        (masks, facts), costs[name] = timed(run_control, name, study, settings, num_workers)
        report[name] = facts | {"lse_minus_control": {}}
        for who, target in targets.items():
            counts = _counts(masks, target, len(classes))
            report[name][f"against_{who}"] = summary(counts, classes)
            report[name]["lse_minus_control"][f"against_{who}"] = _difference(lse[who], counts)
    return report, costs


def _counts(predicted: np.ndarray, target: np.ndarray, num_classes: int) -> PixelCounts:
    counts = PixelCounts(num_classes)
    counts.add(predicted, target)
    return counts


def _difference(first: PixelCounts, second: PixelCounts) -> dict:
    pair = first.intersection_union(), second.intersection_union()
    found = {}
    for protocol, score in PROTOCOLS.items():
        mean = score(*pair[0]).mean - score(*pair[1]).mean
        low, high = paired_interval(*pair, protocol)
        values = {"mean": mean, "low": low, "high": high}
        found[protocol] = {k: round(100 * float(v), 3) for k, v in values.items()}
    return found
