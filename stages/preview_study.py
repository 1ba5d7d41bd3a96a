"""Scores and masks of a study's extractors become its first results: a table and a figure."""

from pathlib import Path

from stages import run


def preview_study(
    images: Path,
    masks: Path,
    judge_masks: Path,
    predictions: Path,
    evaluations: Path,
    preview: Path,
    *,
    study: str,
    samples: int,
    seed: int,
) -> None:
    """Write masks.png and table.md, and print the table; `seed` draws the samples."""
    from pipeline.reporting import draw_extractors, tables
    from pipeline.runtime.progress import say

    shown = images, masks, judge_masks, predictions
    draw_extractors(*shown, preview / "masks.png", samples, seed)
    table = tables.extractor_table({study: tables.read_study(evaluations)})
    path, note = preview / "table", "95 % intervals in parentheses; more in reports/tables."
    tables.write_table(table.dropna(axis=1, how="all"), path, f"First results of {study}", note)
    say(path.with_suffix(".md").read_text() + f"Masks: {preview / 'masks.png'}")


if __name__ == "__main__":
    run(preview_study)
