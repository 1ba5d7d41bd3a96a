"""The blocks of the README that are made of metric JSON."""

import re
from collections.abc import Mapping

from pipeline.errors import InputError
from pipeline.reporting import tables

SHOWN = {
    "study": "study",
    "masks from": "masks from",
    "miou_per_image": "`miou_per_image`",
    "miou_dataset": "`miou_dataset`",
    "% of best NSE, miou_per_image": "relative to the best NSE, %",
    "miou_dataset vs judge": "`miou_dataset` vs judge",
    "CPU s": "CPU s",
}


def blocks(metrics: tables.Metrics) -> dict[str, str]:
    """{name of a block: Markdown}."""
    table = tables.fold(tables.extractor_table(metrics))
    shown = {column: title for column, title in SHOWN.items() if column in table}
    return {"results": tables.markdown(table[list(shown)].rename(columns=shown).round(1))}


def fill(text: str, found: Mapping[str, str]) -> str:
    """Replace the body of every block; InputError if the text lacks one."""
    for name, body in found.items():
        pattern = rf"(<!-- {name}: [^>]*-->\n).*?(\n<!-- end of {name} -->)"
        text, count = re.subn(pattern, lambda m, b=body: m[1] + b + m[2], text, flags=re.DOTALL)
        if count != 1:
            raise InputError(
                f"{count} blocks <!-- {name}: ... --> in the README",
                f"one, closed by <!-- end of {name} -->",
                "put the two comments where the table belongs",
            )
    return text
