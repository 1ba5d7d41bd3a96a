"""How linear appearance is: what of an image a linear reading of feature maps explains.

Every reading is of the same pixels of the image at one size: of the taps up to a limit, of one tap
alone, of the re-initialised generator's taps and of coordinates. R2 is over the pixels and colors
of all samples; its 95 % interval is over samples.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.analysis.control_features import Reinitialized, fourier
from pipeline.analysis.options import AppearanceStudy
from pipeline.data.features import Source
from pipeline.extractors.appearance import (
    Moments,
    Reading,
    channels_of,
    choose,
    readings,
    stream,
    synthesize,
)
from pipeline.extractors.networks import LSE
from pipeline.generators.taps import Tap, select
from pipeline.metrics.bootstrap import percentiles, times_drawn

FINER = 2  # taps up to so many times the limit are looked at, too
CONTROLS = ("coordinates", "reinitialized")


@dataclass(frozen=True)
class Model:
    """A linear reading of some channels of one kind of hypercolumn."""

    kind: str  # taps, or one of CONTROLS
    group: str  # what it stands in the report under: limits, alone or controls
    name: str
    channels: Tensor  # of the kind's
    matrix: Float[Tensor, "channel 3"]
    bias: Float[Tensor, " 3"]

    def read(self, columns: Mapping[str, Tensor]) -> Float[Tensor, "pixel 3"]:
        """Colors of pixels."""
        return columns[self.kind][:, self.channels] @ self.matrix + self.bias


class Errors:
    """Sums over each sample's pixels, of which R2 and PSNR are made."""

    def __init__(self) -> None:
        self.parts: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, squares: np.ndarray, colors: np.ndarray) -> None:
        """Squared errors [sample, model] and colors [sample, pixel, 3]."""
        moments = np.stack([colors.sum(1), np.square(colors).sum(1)], 1)  # [sample, 2, 3]
        self.parts.append((squares, moments / colors.shape[1]))
        self.values = 3 * colors.shape[1]

    def scores(self, model: int) -> dict[str, object]:
        """R2 and PSNR (dB, of values from -1 to 1) of a model."""
        squares, moments = (np.concatenate(part) for part in zip(*self.parts, strict=True))
        squares, num = squares[:, model] / self.values, len(squares)

        def r2(weights: np.ndarray) -> np.ndarray:
            mean, power = np.moveaxis(np.tensordot(weights, moments, 1), -2, 0)
            return 1 - weights @ squares / (power - mean**2).mean(-1)

        low, high = percentiles(r2(times_drawn(num) / num))
        (mean,) = r2(np.full((1, num), 1 / num))
        found = {"mean": mean, "low": low, "high": high}
        return {
            "r2": {name: round(float(value), 4) for name, value in found.items()},
            "psnr": round(float(10 * np.log10(4 / squares.mean())), 2),
            "samples": num,
        }


def measure_appearance(
    source: Source, images: str, settings: AppearanceStudy, num_workers: int = 0
) -> tuple[LSE, dict]:
    """Fit the reading of taps up to the limit, and the ones that it is compared with; test all."""
    fit = settings.fit
    taps = select(source.generator().taps, fit.max_tap_resolution)
    every = select(source.generator().taps, FINER * fit.max_tap_resolution)
    sources = source, Reinitialized(**vars(source), seed=fit.seed)
    some = sources, images, every, taps[-1].resolution, fit
    train = readings(*some, "train", fit.samples)
    held = readings(some[0][:1], *some[1:], "validation", fit.held_samples)
    tests = {
        psi: readings(*some[:-1], replace(fit, psis=(psi,)), "test", settings.test_samples)
        for psi in fit.psis
    }
    moments = _sums(train, num_workers)
    chosen, facts = choose(moments["taps"], held, taps, num_workers)
    models = list(_models(moments, every, facts["strength"]))
    report: dict = {"fit": facts | {"size": taps[-1].resolution, "limit": fit.max_tap_resolution}}
    for psi, tasks in tests.items():
        errors = _test(models, tasks, num_workers)
        for i, model in enumerate(models):
            cell = report.setdefault(model.group, {}).setdefault(model.name, {})
            cell |= {"channels": len(model.channels), str(psi): errors.scores(i)}
    return chosen, report


def _kinds(task: Reading, columns: Sequence[Tensor]) -> dict[str, Tensor]:
    """Hypercolumns of the taps, of the redrawn generator's, and waves of the coordinates."""
    waves = fourier(task.size).flatten(1).T
    places = np.concatenate([task.places(row) for row in range(task.start, task.stop)])
    coordinates = waves[torch.from_numpy(places)]
    return {"taps": columns[0], "reinitialized": columns[1], "coordinates": coordinates}


def _sums(tasks: Sequence[Reading], num_workers: int) -> dict[str, Moments]:
    """The training pixels' moments; of the redrawn generator those of every second pixel."""
    moments: dict[str, Moments] = {}
    for task, (columns, colors) in zip(
        tasks, stream(tasks, "reading colors", num_workers), strict=True
    ):
        for kind, x in _kinds(task, columns).items():
            step = 2 if kind == "reinitialized" else 1
            moments.setdefault(kind, Moments(x.shape[1])).add(x[::step], colors[::step])
    return moments


def _models(moments: Mapping[str, Moments], taps: Sequence[Tap], strength: float) -> Iterator:
    """All readings, fitted with the strength that was chosen for the taps up to the limit."""
    sets = [
        ("taps", "limits", str(px), select(taps, px))
        for px in sorted({tap.resolution for tap in taps})
    ]
    sets += [("taps", "alone", tap.name, (tap,)) for tap in taps]
    for kind, group, name, some in sets:
        channels = channels_of(taps, some)
        yield Model(kind, group, name, channels, *moments[kind].solve(strength, channels))
    for kind in CONTROLS:
        channels = torch.arange(len(moments[kind].gram) - 1)
        found = moments[kind].solve(strength)
        yield Model(kind, "controls", kind, channels, *found)


def _test(models: Sequence[Model], tasks: Sequence[Reading], num_workers: int) -> Errors:
    errors = Errors()
    for task, (columns, colors) in zip(
        tasks, stream(tasks, "testing colors", num_workers), strict=True
    ):
        kinds, num = _kinds(task, columns), task.stop - task.start
        squares = [
            (model.read(kinds) - colors).square().view(num, -1).sum(1).numpy() for model in models
        ]
        shown = colors.view(num, -1, 3).double().numpy()
        errors.add(np.stack(squares, 1).astype(np.float64), shown)
    return errors


def draw_readings(
    source: Source, images: str, appearance: LSE, settings: AppearanceStudy
) -> dict[str, UInt8[np.ndarray, "sample 3 size size"]]:
    """Images and linear readings {psi/images, psi/readings} of the first test samples."""
    size = appearance.taps[-1].resolution
    found = {}
    for psi in settings.fit.psis:
        pairs = []
        for row in range(settings.shown):
            maps, image = synthesize(source, appearance.taps, "test", row, psi, images, size)
            pairs.append((image, appearance.logits(maps, size)[0]))
        for name, pictures in zip(("images", "readings"), zip(*pairs, strict=True), strict=True):
            values = torch.stack(pictures).clamp(-1, 1).add(1).mul(127.5).round()
            found[f"{psi}/{name}"] = values.to(torch.uint8).numpy()
    return found
