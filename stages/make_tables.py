"""Metric JSON becomes tables: one line per extractor, and IoU per class."""

from pathlib import Path

from stages import run

NOTE = """mIoU in %, on test samples that no fit has seen. `miou_per_image` is eq (4) of the paper,
`miou_dataset` one confusion matrix over all pixels; both leave class 0 out. low and high: 95 %
bootstrap interval over images. "vs judge": against a second network of another architecture and
seed. "teacher (ceiling)" is the teacher's own masks under the judge: an extractor trained on them
cannot be expected above it. A dash: does not apply, or the class occurs in no image."""


def make_tables(metrics: Path, tables: Path) -> None:
    """Write extractors.{md,csv} and classes_<study>.{md,csv} from reports/metrics."""
    from pipeline.reporting import class_table, extractor_table, read_metrics, write_table

    found = read_metrics(metrics)
    write_table(extractor_table(found), tables / "extractors", "Linear extractors", NOTE)
    for study in found:
        title = f"IoU per class, {study}"
        write_table(class_table(found, study), tables / f"classes_{study}", title, NOTE)


if __name__ == "__main__":
    run(make_tables)
