"""Result JSON read, and tables written: Markdown for people, CSV for programs."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from pipeline.reporting.palette import COLORS
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import atomic, read_json

PROTOCOLS = ("miou_per_image", "miou_dataset")
TWO_PROTOCOLS = """mIoU in %, on test samples that no fit has seen. `miou_per_image` is eq (4) of
the paper, `miou_dataset` one confusion matrix over all pixels; both leave class 0 out. In
parentheses: 95 % bootstrap interval over images. A dash: does not apply, or the class occurs in no
image."""
# Order of rows, and what an extractor is called in print.
EXTRACTORS = {
    "lse": "LSE",
    "lse_biased": "LSE with a bias",
    "lse_coarse": "LSE, coarse taps",
    "nse1": "NSE-1",
    "nse1_3x3": "NSE-1, 3x3",
    "nse2": "NSE-2",
}

Metrics = Mapping[str, Mapping[str, dict]]


def read_results(results: Path, costs: Path | None = None) -> dict[str, dict[str, dict]]:
    """{study: {name: JSON}} of `results`/<study>; costs of `costs`/<study> are `costs/name`."""
    studies = {p.name: read_study(p) for p in sorted(results.glob("*")) if p.is_dir()}
    found = {name: files for name, files in studies.items() if files}
    if not found:
        raise InputError(f"no results in {results}", "<study>/*.json", "run `dvc repro`")
    for study in found if costs else ():
        for path in sorted((costs / study).rglob("*.json")):
            name = path.relative_to(costs / study).with_suffix("")
            found[study][f"costs/{name}"] = read_json(path)
    return found


def read_study(folder: Path) -> dict[str, dict]:
    """{name: JSON} of a study's folder; files of a subfolder but `scores` are `subfolder/name`."""
    names = {path: str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.json")}
    names = {path: name.removeprefix("scores/") for path, name in names.items()}
    return {name: read_json(path) for path, name in sorted(names.items(), key=lambda x: x[1])}


def cpu_seconds(files: Mapping[str, dict], name: str) -> float | None:
    """CPU seconds of `costs/<name>`; None if they were not kept."""
    return files.get(f"costs/{name}", {}).get("cpu_seconds")


def in_order(per_class: Mapping[str, float | None]) -> dict[str, float | None]:
    """Scores per class in the order of the label spaces; JSON sorts them by name."""
    return {c: per_class[c] for c in [*COLORS, *per_class] if c in per_class}


def write_table(table: pd.DataFrame, path: Path, title: str, note: str) -> None:
    """Write <path>.md with a title and a note, and <path>.csv."""
    with atomic(path.with_suffix(".csv")) as partial:
        table.to_csv(partial, index=False, float_format="%.6g")
    with atomic(path.with_suffix(".md")) as partial:
        partial.write_text(f"# {title}\n\n{markdown(fold(table))}\n\n{note}\n")


def fold(table: pd.DataFrame) -> pd.DataFrame:
    """Columns `x`, `x low`, `x high` as one column of text: 81.3 (78.9 to 83.3)."""
    folded = table.copy()
    for column in table:
        low, high = f"{column} low", f"{column} high"
        if low in table and high in table:
            folded[column] = [
                _with_interval(m, a, b)
                for m, a, b in zip(table[column], table[low], table[high], strict=True)
            ]
            folded = folded.drop(columns=[low, high])
    return folded


def _with_interval(mean: float, low: float, high: float) -> str | None:
    if pd.isna(mean):
        return None
    return f"{mean:.1f}" if pd.isna(low) else f"{mean:.1f} ({low:.1f} to {high:.1f})"


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown; numbers right-aligned to four digits, missing ones as a dash."""

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


def points(gap: Mapping[str, float]) -> str:
    """A difference with its interval, in points: +1.2 (-0.3 to +2.5)."""
    return f"{gap['mean']:+.1f} ({gap['low']:+.1f} to {gap['high']:+.1f})"


def verdict(gap: Mapping[str, float]) -> str:
    """A remark if a difference's interval includes 0."""
    return " (the interval includes 0)" if gap["low"] <= 0 <= gap["high"] else ""
