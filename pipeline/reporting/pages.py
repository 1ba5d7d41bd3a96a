"""Pages made of results: the README's table, and the pages of results and of measurements."""

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from pipeline.reporting import measured, paper
from pipeline.reporting.findings import findings
from pipeline.reporting.tables import Metrics, markdown
from pipeline.runtime.errors import InputError

# Rows of the README's table, by the headline metric that they show.
ROWS = {
    "LSE": "lse_miou_per_image",
    "best nonlinear extractor (NSE)": "best_nse_miou_per_image",
    "LSE on the strongest control features": "best_control_miou_per_image",
}
RESULTS = """# Results

Written by `python -m stages.update_readme` from the results of a whole run. Scores are in percent;
in parentheses: 95 % bootstrap interval over images. The same tables as CSV, of your own run, lie in
`reports/tables/`."""
MEASURED = """# Measured

`make bench` prints these, each with its baseline; JSON in [benchmarks/](benchmarks/). CPU figures
are of one thread of a shared machine: read the ratios. Where the last column is empty, an earlier
state of the code was measured, on two cores with bfloat16 units; of these, the fits saw masks of an
earlier teacher. `RECIPE_EPOCHS=10 python -m benchmarks solver` runs a fifth of the paper's recipe,
which takes over an hour in full."""


def headline_table(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown of `miou_per_image` in percent: a row per extractor, a column per study."""
    table = pd.DataFrame({"masks from": [*ROWS, "paper's LSE, another FFHQ generator and teacher"]})
    for study, values in metrics.items():
        printed = paper.MIOU["LSE"] if study == "ffhq" else None
        table[study] = [*(values.get(key) for key in ROWS.values()), printed]
    return markdown(table)


def results_page(metrics: Metrics, tables: Path) -> str:
    """Findings of every study, then every table of the folder `tables` (`*.md`)."""
    lines = "\n".join(f"* {line}" for line in findings(metrics))
    parts = [RESULTS, f"## Findings\n\n{lines}"]
    parts += [f"#{path.read_text().strip()}" for path in sorted(tables.glob("*.md"))]
    return "\n\n".join(parts) + "\n"


def measured_page(benchmarks: Path) -> str:
    """Every benchmark of the folder as one table."""
    return f"{MEASURED}\n\n{measured.table(benchmarks)}\n"


def fill(text: str, blocks: Mapping[str, str]) -> str:
    """Replace the body of every block; InputError if the text lacks one."""
    for name, body in blocks.items():
        pattern = rf"(<!-- {name}: [^>]*-->\n).*?(\n<!-- end of {name} -->)"
        text, count = re.subn(pattern, lambda m, b=body: m[1] + b + m[2], text, flags=re.DOTALL)
        if count != 1:
            raise InputError(
                f"{count} blocks <!-- {name}: ... --> in the README",
                f"one, closed by <!-- end of {name} -->",
                "put the two comments where the table belongs",
            )
    return text
