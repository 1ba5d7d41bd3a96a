"""Result JSON becomes the papers' tables, each beside the paper's numbers where it has some."""

from pathlib import Path

from stages import run


def make_tables(
    results: Path,  # folder of result JSON per study
    costs: Path,  # folder of CPU seconds per study (JSON)
    tables: Path,  # folder for the tables (Markdown and CSV)
) -> None:
    """Write every topic's tables as Markdown and CSV."""
    from pipeline.reporting.tables import read_results, write_table
    from pipeline.reporting.topics import TOPICS

    found = read_results(results, costs)
    for topic in TOPICS.values():
        for name, title, note, table in topic.all_tables(found):
            write_table(table, tables / name, title, note)


if __name__ == "__main__":
    run(make_tables)
