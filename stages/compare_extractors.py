"""Predicted masks of all extractors become paired differences and confusion matrices."""

from pathlib import Path

from stages import run


def compare_extractors(
    masks: Path,
    predictions: Path,
    metrics: Path,
    confusion: Path,
) -> None:
    """Compare every <extractor>.zarr.zip of a folder with the best NSE on the same test samples."""
    import csv

    from pipeline.analysis.comparison import against_best, confusion_rows, count
    from pipeline.data.arrays import Group
    from pipeline.extractors.registry import is_nonlinear
    from pipeline.runtime.errors import InputError
    from pipeline.runtime.files import atomic, write_json

    target, classes = Group(masks).read("test", "masks"), Group(masks).attributes["classes"]
    paths = sorted(predictions.glob("*.zarr.zip"))
    found = {path.name.split(".")[0]: Group(path).read("test", "masks") for path in paths}
    if "lse" not in found:
        raise InputError(
            f"{predictions} with {', '.join(found) or 'nothing'}",
            "lse.zarr.zip at least",
            "add lse to extractors in params.yaml and run `dvc repro`",
        )
    counts = count(found, target, len(classes))
    nonlinear = [name for name in found if is_nonlinear(name)]
    write_json(metrics, against_best(counts, nonlinear) if nonlinear else {})
    with atomic(confusion) as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("actual", "predicted"))
        writer.writerows(confusion_rows(counts["lse"], classes))


if __name__ == "__main__":
    run(compare_extractors)
