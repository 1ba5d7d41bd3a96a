"""Stored masks and result JSON become pictures: masks, samples and edits side by side, curves."""

from pathlib import Path

from stages import run


def make_figures(
    images: Path,
    masks: Path,
    judge_masks: Path,
    predictions: Path,
    results: Path,
    confusion: Path,
    readings: Path,
    geometry_masks: Path,
    sampled: Path,
    edited: Path,
    styled: Path,
    directions: Path,
    figures: Path,
    *,
    samples: int,  # test samples in the figures
    seed: int,  # seed of the draw of these samples
) -> None:
    """Write the figures of a study, each if its data is there; `seed` draws the samples."""
    import pandas as pd

    from pipeline.data.arrays import Group
    from pipeline.reporting import (
        appearance,
        confusion_figure,
        draw_extractors,
        editing,
        fewshot,
        geometry,
        line_figure,
        sampling,
        style,
        tables,
        views,
    )
    from pipeline.reporting import directions as found_directions

    classes = Group(masks).attributes["classes"]
    shown = images, masks, judge_masks, predictions
    draw_extractors(*shown, figures / "masks.png", samples, seed)

    files = tables.read_study(results)
    line_figure(figures / "training.png", [views.training_panel(files)])
    if panels := fewshot.panels(files):
        line_figure(figures / "fewshot.png", panels)
    if panels := sampling.panels(files):
        line_figure(figures / "sampling_rates.png", panels)
    if panels := geometry.panels(files):
        line_figure(figures / "geometry.png", panels)
        geometry.draw_cosines(files, figures / "cosines.png")
        shown = geometry_masks, images, masks
        geometry.draw_masks(*shown, figures / "centers.png")
        geometry.draw_taps(*shown, files, figures / "taps.png", samples)
    if readings.exists():
        appearance.draw_readings(readings, figures / "appearance.png")
    if sampled.exists():
        sampling.draw_study(sampled, figures / "sampling.png", samples)
    if (pictures := edited / "pictures.zarr.zip").exists():
        editing.draw_study(pictures, figures / "editing.png", samples)
    style.draw_study(styled, files, figures, samples)
    if (pictures := directions / "pictures.zarr.zip").exists():
        found_directions.draw_study(pictures, figures / "directions.png")
    shares = views.confusion_shares(pd.read_csv(confusion), classes)
    confusion_figure(figures / "confusion.png", shares, classes)


if __name__ == "__main__":
    run(make_figures)
