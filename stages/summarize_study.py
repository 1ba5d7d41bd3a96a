"""All results of a study become its headline metrics: the numbers that `dvc metrics diff` shows."""

from pathlib import Path

from stages import run


def summarize_study(
    results: Path,
    metrics: Path,
    *,
    shots: int,
) -> None:
    """Write at most twenty numbers, rounded to what their intervals support."""
    from pipeline.reporting.headline import headline
    from pipeline.reporting.tables import read_study
    from pipeline.runtime.files import write_json

    write_json(metrics, headline(read_study(results), shots))


if __name__ == "__main__":
    run(summarize_study)
