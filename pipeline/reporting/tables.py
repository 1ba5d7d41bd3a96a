"""Tables from metric JSON: Markdown for people, CSV for programs."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from pipeline.errors import InputError
from pipeline.files import atomic, read_json
from pipeline.reporting.palette import COLORS

PROTOCOLS = ("miou_per_image", "miou_dataset")


def read_metrics(folder: Path) -> dict[str, dict[str, dict]]:
    """{study: {file stem: JSON}} of `folder`/<study>/*.json."""
    found = {
        study.name: {path.stem: read_json(path) for path in sorted(study.glob("*.json"))}
        for study in sorted(p for p in folder.glob("*") if p.is_dir())
    }
    if not found:
        raise InputError(f"no metrics in {folder}", "<study>/<extractor>.json", "run `dvc repro`")
    return found


def extractor_table(metrics: Mapping[str, Mapping[str, dict]]) -> pd.DataFrame:
    """One row per study and extractor, and one for the teacher: the judge's view is the ceiling."""
    rows = []
    for study, files in metrics.items():
        for name, value in files.items():
            if "against_teacher" not in value:
                continue
            fit = files.get(f"{name}_fit", {})
            row = {"study": study, "masks from": name}
            for protocol in PROTOCOLS:
                scores = value["against_teacher"][protocol]
                row[f"{protocol} vs teacher"] = scores["mean"]
                row[f"{protocol} low"], row[f"{protocol} high"] = scores["low"], scores["high"]
            for protocol in PROTOCOLS:
                row[f"{protocol} vs judge"] = value["against_judge"][protocol]["mean"]
            row |= {key: fit.get(key) for key in ("l2", "iteration", "parameters", "cpu_seconds")}
            rows.append(row)
        if "ceiling" in files:
            row = {"study": study, "masks from": "teacher (ceiling)"}
            for protocol in PROTOCOLS:
                row[f"{protocol} vs judge"] = files["ceiling"][protocol]["mean"]
            rows.append(row)
    return pd.DataFrame(rows)


def class_table(metrics: Mapping[str, Mapping[str, dict]], study: str) -> pd.DataFrame:
    """IoU per class of one study: every extractor against the teacher, LSE and teacher vs judge."""
    files = metrics[study]
    columns = {}
    for protocol in PROTOCOLS:
        for name, value in files.items():
            if "against_teacher" in value:
                columns[f"{name} vs teacher, {protocol}"] = _scores(
                    value["against_teacher"], protocol
                )
        columns[f"lse vs judge, {protocol}"] = _scores(files["lse"]["against_judge"], protocol)
        columns[f"teacher vs judge (ceiling), {protocol}"] = _scores(files["ceiling"], protocol)
    table = pd.DataFrame(columns)
    table.index.name = "class"
    return table.reset_index()


def _scores(value: Mapping, protocol: str) -> dict:
    return in_order(value[protocol]["per_class"]) | {"mean without bg": value[protocol]["mean"]}


def in_order(per_class: Mapping[str, float]) -> dict[str, float]:
    """Scores per class in the order of the label spaces; JSON sorts them by name."""
    return {c: per_class[c] for c in [*COLORS, *per_class] if c in per_class}


def write_table(table: pd.DataFrame, path: Path, title: str, note: str) -> None:
    """Write <path>.md with a title and a note, and <path>.csv."""
    with atomic(path.with_suffix(".csv")) as partial:
        table.to_csv(partial, index=False)
    with atomic(path.with_suffix(".md")) as partial:
        partial.write_text(f"# {title}\n\n{markdown(table)}\n\n{note}\n")


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown; numbers right-aligned to two decimals, missing ones as a dash."""

    def cell(value: object) -> str:
        if value is None or (isinstance(value, float) and pd.isna(value)):
            return "–"
        if isinstance(value, float):
            return f"{value:.0f}" if value.is_integer() and value >= 1000 else f"{value:.4g}"
        return str(value)

    numeric = [pd.api.types.is_numeric_dtype(table[column]) for column in table]
    lines = ["| " + " | ".join(map(str, table.columns)) + " |"]
    lines.append("|" + "|".join("---:" if n else "---" for n in numeric) + "|")
    lines += ["| " + " | ".join(map(cell, row)) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines)
