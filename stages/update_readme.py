"""Results become the README's table and the pages of reports/ (a tool, no DVC stage)."""

from pathlib import Path

from stages import run


def update_readme(
    results: Path = Path("data/results"),  # folder of result JSON per study
    costs: Path = Path("data/costs"),  # folder of CPU seconds per study
    reports: Path = Path("reports"),  # folder of metrics/ and benchmarks/, and of the pages
    readme: Path = Path("README.md"),  # page whose blocks are replaced
) -> None:
    """Rewrite the README's table, reports/results.md and reports/measured.md."""
    from pipeline.reporting import measured, pages
    from pipeline.reporting.tables import read_results
    from pipeline.runtime.files import atomic

    written = {
        reports / "results.md": pages.results_page(read_results(results, costs)),
        reports / "measured.md": measured.page(reports / "benchmarks"),
        readme: pages.fill(
            readme.read_text(), {"results": pages.headline_table(reports / "metrics")}
        ),
    }
    for path, text in written.items():
        with atomic(path) as partial:
            partial.write_text(text)


if __name__ == "__main__":
    run(update_readme)
