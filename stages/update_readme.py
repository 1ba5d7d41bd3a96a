"""Tables and benchmarks of reports/ become the README's figures (a tool, no DVC stage)."""

from pathlib import Path

from stages import run


def update_readme(metrics: Path, benchmarks: Path, readme: Path) -> None:
    """Rewrite what stands between `<!-- NAME: ... -->` and `<!-- end of NAME -->` in a README."""
    from pipeline.reporting import measured
    from pipeline.reporting import readme as blocks
    from pipeline.reporting.tables import read_metrics
    from pipeline.runtime.files import atomic

    found = blocks.blocks(read_metrics(metrics)) | {"measured": measured.table(benchmarks)}
    text = blocks.fill(readme.read_text(), found)
    with atomic(readme) as partial:
        partial.write_text(text)


if __name__ == "__main__":
    run(update_readme)
