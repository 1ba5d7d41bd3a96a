"""Pages made of results: the README's table, and reports/results.md with findings and tables."""

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from pipeline.reporting import paper
from pipeline.reporting.tables import Metrics, fold, markdown
from pipeline.reporting.topics import TOPICS
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json

# Rows of the README's table: what it is called, the headline metric, the paper's value.
ROWS = (
    ("LSE: one linear map", "lse_miou_per_image", paper.MIOU["LSE"]),
    (
        "best NSE: nonlinear",
        "best_nse_miou_per_image",
        max(paper.MIOU["NSE-1"], paper.MIOU["NSE-2"]),
    ),
    ("strongest control: the LSE's fit on other features", "best_control_miou_per_image", None),
    ("LSE of 16 annotated samples", "fewshot_miou_per_image", paper.FEWSHOT[16][0]),
)


def headline_table(metrics: Path) -> str:
    """The README's table from reports/metrics/<study>.json: a column per study, and the paper's."""
    studies = {path.stem: read_json(path) for path in sorted(metrics.glob("*.json"), reverse=True)}
    if not studies:
        raise InputError(f"no metrics in {metrics}", "<study>.json", "run `dvc repro`")
    rows = []
    for title, name, published in ROWS:
        row = {"mIoU per image, %": title}
        row |= {f"`{study}`": _text(values.get(name)) for study, values in studies.items()}
        rows.append(row | {"the paper, StyleGAN2-FFHQ": _text(published)})
    return markdown(pd.DataFrame(rows))


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"


def results_page(metrics: Metrics) -> str:
    """All findings and tables by topic, as Markdown."""
    parts = [INTRODUCTION]
    for title, topic in TOPICS.items():
        parts.append(f"## {title}")
        describe = getattr(topic, "findings", None)
        lines = [
            f"* `{study}`: {line}"
            for study, files in metrics.items()
            for line in (describe(files) if describe else ())
        ]
        parts += ["\n".join(lines)] if lines else []
        for _, name, note, table in topic.all_tables(metrics):
            if len(table):
                parts.append(f"### {name}\n\n{markdown(fold(_rounded(table)))}\n\n{note}")
    return "\n\n".join(parts) + "\n"


INTRODUCTION = """# Results

Made by `python -m stages.update_readme` from the results of the last full run. In parentheses: 95 %
intervals. Words: [glossary](../docs/glossary.md)."""


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Columns of scores to a tenth; counts and small shares as they are."""
    rounded = table.copy()
    for column in table.select_dtypes("float"):
        if table[column].abs().max() >= 10:
            rounded[column] = table[column].round(1)
    return rounded


def fill(text: str, blocks: Mapping[str, str]) -> str:
    """Replace the body of every block `<!-- NAME: ... -->` to `<!-- end of NAME -->` of a page."""
    for name, body in blocks.items():
        pattern = rf"(<!-- {name}: [^>]*-->\n).*?(\n<!-- end of {name} -->)"
        text, count = re.subn(pattern, lambda m, b=body: m[1] + b + m[2], text, flags=re.DOTALL)
        if count != 1:
            raise InputError(
                f"{count} blocks <!-- {name}: ... --> in the page",
                f"one, closed by <!-- end of {name} -->",
                "put the two comments where the table belongs",
            )
    return text
