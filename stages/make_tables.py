"""Result JSON becomes the paper's tables, each beside the paper's numbers where it has some."""

from pathlib import Path

from stages import run


def make_tables(results: Path, costs: Path, tables: Path) -> None:
    """Write the tables of all studies' results, and one of costs, as Markdown and CSV."""
    from pipeline.reporting import tables as make
    from pipeline.reporting.contents import SECTIONS

    found = make.read_metrics(results)
    for section in SECTIONS:
        for name, title, note, table in section.tables(found):
            make.write_table(table, tables / name, title, note)
    spent = make.cost_table(make.read_studies(costs))
    make.write_table(spent, tables / "costs", "What stages cost", make.COSTS)


if __name__ == "__main__":
    run(make_tables)
