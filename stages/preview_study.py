"""The LSE becomes a study's first results: a figure of its masks and a table of its scores."""

from pathlib import Path

from pipeline.reporting.options import Shown
from pipeline.runtime.options import Machine
from stages import run
from stages.evaluate_extractor import evaluate_extractor
from stages.paths import Imaged, Labeled


def preview_study(
    inputs: Imaged,
    judge_masks: Path,
    ceiling: Path,
    extractor: Path,
    preview: Path,
    *,
    study: str,
    shown: Shown,
    machine: Machine,
) -> None:
    """Write masks.png and table.md, and print the table; `seed` draws the samples of the figure.

    The LSE is evaluated here by itself: the other extractors take minutes to fit.
    """
    from pipeline.reporting import tables
    from pipeline.reporting.figures import draw_extractors
    from pipeline.runtime.files import read_json
    from pipeline.runtime.progress import say

    evaluate_extractor(
        Labeled(inputs.checkpoint, inputs.latents, inputs.masks),
        extractors=extractor.parent,
        predictions=preview,
        metrics=preview,
        names=[extractor.stem],
        machine=machine,
        judge_masks=judge_masks,
    )
    read = inputs.images, inputs.masks, judge_masks, preview
    draw_extractors(*read, preview / "masks.png", shown.samples, shown.seed)
    files = tables.read_study(preview) | {"ceiling": read_json(ceiling)}
    table = tables.extractor_table({study: files}).dropna(axis=1, how="all")
    note = "IoU in %, with 95 % intervals; the row of the teacher is the limit under the judge."
    tables.write_table(table, preview / "table", f"First results of {study}", note)
    say((preview / "table.md").read_text() + f"\nMasks: {preview / 'masks.png'}")


if __name__ == "__main__":
    run(preview_study)
