"""Stored masks and result JSON become pictures: masks, samples and edits side by side, curves."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.reporting.options import Shown
from stages import run


@dataclass(frozen=True)
class Study:
    """What a study has made; of some of it there may be nothing."""

    images: Path
    masks: Path
    judge_masks: Path
    predictions: Path
    results: Path
    confusion: Path
    readings: Path
    geometry_masks: Path
    sampled: Path
    edited: Path
    styled: Path
    directions: Path


def make_figures(
    study: Study,
    figures: Path,
    *,
    shown: Shown,
) -> None:
    """Write the figures of a study, each if its data is there; `seed` draws the samples."""
    import pandas as pd

    from pipeline.data.arrays import Group
    from pipeline.reporting import tables, views
    from pipeline.reporting.curves import confusion_figure
    from pipeline.reporting.figures import draw_extractors

    read = study.images, study.masks, study.judge_masks, study.predictions
    draw_extractors(*read, figures / "masks.png", shown.samples, shown.seed)
    files = tables.read_study(study.results)
    _draw_curves(files, figures)
    _draw_pictures(study, files, figures, shown.samples)
    classes = Group(study.masks).attributes["classes"]
    shares = views.confusion_shares(pd.read_csv(study.confusion), classes)
    confusion_figure(figures / "confusion.png", shares, classes)


def _draw_curves(files: Mapping[str, dict], figures: Path) -> None:
    """Curves of the fits, of few shots, of sampling and of the taps."""
    from pipeline.reporting import fewshot, geometry, sampling, views
    from pipeline.reporting.curves import line_figure

    line_figure(figures / "training.png", [views.training_panel(files)])
    if panels := fewshot.panels(files):
        line_figure(figures / "fewshot.png", panels)
    if panels := sampling.panels(files):
        line_figure(figures / "sampling_rates.png", panels)
    if panels := geometry.panels(files):
        line_figure(figures / "geometry.png", panels)
        geometry.draw_cosines(files, figures / "cosines.png")


def _draw_pictures(study: Study, files: Mapping[str, dict], figures: Path, samples: int) -> None:
    """Images and masks side by side: centers and taps, readings, samples, edits, directions."""
    from pipeline.reporting import appearance, directions, editing, geometry, sampling, style

    if geometry.panels(files):
        read = study.geometry_masks, study.images, study.masks
        geometry.draw_masks(*read, figures / "centers.png")
        geometry.draw_taps(*read, files, figures / "taps.png", samples)
    if study.readings.exists():
        appearance.draw_readings(study.readings, figures / "appearance.png")
    if study.sampled.exists():
        sampling.draw_study(study.sampled, figures / "sampling.png", samples)
    if (pictures := study.edited / "pictures.zarr.zip").exists():
        editing.draw_study(pictures, figures / "editing.png", samples)
    style.draw_study(study.styled, files, figures, samples)
    if (pictures := study.directions / "pictures.zarr.zip").exists():
        directions.draw_study(pictures, figures / "directions.png")


if __name__ == "__main__":
    run(make_figures)
