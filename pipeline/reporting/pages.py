"""Pages made of results: the README's table, and the pages of results and of measurements."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from pipeline.reporting import findings, measured, paper
from pipeline.reporting.contents import SECTIONS
from pipeline.reporting.tables import Metrics, fold, markdown
from pipeline.runtime.errors import InputError

# Rows of the README's table, by the headline metric that they show.
ROWS = {
    "LSE": "lse_miou_per_image",
    "best nonlinear extractor (NSE)": "best_nse_miou_per_image",
    "LSE on the strongest control features": "best_control_miou_per_image",
}
RESULTS = """# Results

Written by `python -m stages.update_readme` from the results of a whole run. Scores are in percent;
in parentheses: 95 % bootstrap interval over images. The words are in the README's
[glossary](../README.md#glossary). The same tables of your own run, as Markdown and CSV, and one of
what each stage cost on your machine, lie in `reports/tables/`."""
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


def caption(metrics: Metrics) -> str:
    """What stands under the README's table: how sure the difference of LSE and NSE is."""
    lines = [
        f"* `{study}`: {line}"
        for study, files in sorted(metrics.items(), reverse=True)
        for line in findings.to_nse(files)
        if "`miou_per_image`" in line
    ]
    return "\n".join(lines)


def results_page(metrics: Metrics) -> str:
    """Contents with links, the findings of every section, then its tables."""
    contents, found, parts = [], [], []
    for section in SECTIONS:
        if not (listed := [table for table in section.tables(metrics) if len(table[-1])]):
            continue
        links = ", ".join(f"[{title}](#{name})" for name, title, _, _ in listed)
        contents.append(f"* [{section.title}](#{section.anchor}): {links}")
        said = [
            f"* `{study}`: {line}"
            for describe in section.findings
            for study, files in metrics.items()
            for line in describe(files)
        ]
        if said:
            found.append(f"**[{section.title}](#{section.anchor})**\n\n" + "\n".join(said))
        parts.append(f"{_anchor(section.anchor)}## {section.title}")
        for name, title, note, table in listed:
            heading = f"{_anchor(name)}### {title}"
            parts.append(f"{heading}\n\n{markdown(fold(table))}\n\n{note}")
    top = f"{_anchor('findings')}## Findings"
    links = "\n".join(["* [Findings](#findings)", *contents])
    return "\n\n".join([RESULTS, links, top, *found, *parts]) + "\n"


def _anchor(name: str) -> str:
    """A target of links that does not change with the words of the heading below it."""
    return f'<a id="{name}"></a>\n\n'


def measured_page(benchmarks: Path) -> str:
    """Every benchmark of the folder as one table."""
    return f"{MEASURED}\n\n{measured.table(benchmarks)}\n"


def fill(text: str, blocks: Mapping[str, str]) -> str:
    """Replace the body of every block; InputError if the text lacks one."""
    for name, body in blocks.items():
        pattern = rf"(<!-- {name}: [^>]*-->\n).*?(\n<!-- end of {name} -->)"
        text, count = re.subn(pattern, _around(body), text, flags=re.DOTALL)
        if count != 1:
            raise InputError(
                f"{count} blocks <!-- {name}: ... --> in the README",
                f"one, closed by <!-- end of {name} -->",
                "put the two comments where the table belongs",
            )
    return text


def _around(body: str) -> Callable[[re.Match[str]], str]:
    return lambda found: found[1] + body + found[2]
