"""A whole run's results become the committed pages: the README's table, results, measurements."""

from pathlib import Path

from stages import run


def update_readme(results: Path, reports: Path, readme: Path) -> None:
    """Rewrite reports/results.md, reports/measured.md and the README's table, after a whole run."""
    from pipeline.reporting import pages
    from pipeline.reporting.tables import read_metrics
    from pipeline.runtime.files import atomic, read_json

    metrics = sorted((reports / "metrics").glob("*.json"), reverse=True)
    table = pages.headline_table({path.stem: read_json(path) for path in metrics})
    found = read_metrics(results)
    blocks = {"results": table, "caption": pages.caption(found)}
    texts = {
        reports / "results.md": pages.results_page(found),
        reports / "measured.md": pages.measured_page(reports / "benchmarks"),
        readme: pages.fill(readme.read_text(), blocks),
    }
    for path, text in texts.items():
        with atomic(path) as partial:
            partial.write_text(text)


if __name__ == "__main__":
    run(update_readme)
