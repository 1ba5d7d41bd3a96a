"""Tables of extractors and of costs from JSON: Markdown for people, CSV for programs."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.extractors.registry import EXTRACTORS, title_of
from pipeline.reporting import paper
from pipeline.reporting.palette import COLORS
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import atomic, read_json

PROTOCOLS = ("miou_per_image", "miou_dataset")
LABELS = ("full", "selected")

Metrics = Mapping[str, Mapping[str, dict]]
Row = dict[str, Any]  # of a table: {column: text, number or None}
Table = tuple[str, str, str, pd.DataFrame]  # file name, title, note, rows

TWO_PROTOCOLS = """mIoU in %, on test samples that no fit has seen. `miou_per_image` is eq (4) of
the paper, `miou_dataset` one confusion matrix over all pixels; both leave class 0 out. In
parentheses: 95 % bootstrap interval over images. A dash: does not apply, or the class occurs in no
image."""

TABLE_1 = f"""{TWO_PROTOCOLS} "% of best NSE": relative difference to the best of the NSEs, with the
interval of the paired difference. "vs judge": under a second network of another architecture and
seed; the row "teacher" is the teacher's own masks there, the ceiling of every extractor trained on
them. The LSE reads all taps; NSEs read the cached ones (see the facts of each fit). Controls: the
LSE's classifier on other features. The paper's StyleGAN2-FFHQ, another generator, another teacher,
10,000 test samples: LSE 79.7, NSE-1 81.0, NSE-2 80.2 (its table 6 averages to 76.4, 79.3, 78.6)."""

TABLE_4 = f"""{TWO_PROTOCOLS} Both lists averaged over the finally selected classes, as in the
paper, whose table 4 has scenes only. Classes that no extractor predicts above the threshold on the
full list are dropped, and everything is fitted again on the rest. Fits take the few steps of
`selection_fit` here: read them for the classes they find, not against table 1."""

TABLE_5 = """IoU per class in %, protocol of `miou_per_image`. A dropped class has no score on the
selected list; a dash on both: it occurs in no test image."""

TABLE_6 = """IoU per class in %, protocol of `miou_per_image`, beside the paper's table 6 for
StyleGAN2-FFHQ (another generator and teacher)."""

COSTS = """Seconds on the clock, and of the processor with its workers, as measured on the machine
that ran the stage, which may have been busy with others. Fits of few-shot LSEs: all repeats
together. An edit: mean over the edits. No other table has times, so all others are the same on
another machine, to rounding."""


def score_tables(metrics: Metrics) -> Iterator[Table]:
    """Table 1."""
    yield "table1", "Table 1: extractors", TABLE_1, extractor_table(metrics)


def label_tables(metrics: Metrics) -> Iterator[Table]:
    """Tables 4 to 6, and the scores against teacher and judge: label lists, and each class."""
    yield "table4", "Table 4: label lists", TABLE_4, selection_table(metrics)
    for number, what, note, make in (
        ("table5", "Table 5: label lists", TABLE_5, selected_class_table),
        ("table6", "Table 6: IoU per class", TABLE_6, face_class_table),
        ("classes", "IoU per class against teacher and judge", TWO_PROTOCOLS, class_table),
    ):
        for study in metrics:
            yield f"{number}_{study}", f"{what}, {study}", note, make(metrics, study)


def cost_table(costs: Metrics) -> pd.DataFrame:
    """A row per study, stage and what was timed; costs: {study: {stage: {what: seconds}}}."""
    rows = [
        {"study": study, "stage": stage, "what": what}
        | {"s": spent.get("seconds"), "CPU s": spent["cpu_seconds"]}
        for study, stages in costs.items()
        for stage, found in stages.items()
        for what, spent in found.items()
    ]
    return pd.DataFrame(rows, columns=["study", "stage", "what", "s", "CPU s"])


def read_metrics(folder: Path) -> dict[str, dict[str, dict]]:
    """{study: {name: JSON}} of `folder`/<study>."""
    if not (found := read_studies(folder)):
        raise InputError(f"no results in {folder}", "<study>/<result>.json", "run `dvc repro`")
    return found


def read_studies(folder: Path) -> dict[str, dict[str, dict]]:
    """The same of any folder; none of what is empty."""
    studies = {p.name: read_study(p) for p in sorted(folder.glob("*")) if p.is_dir()}
    return {name: files for name, files in studies.items() if files}


def read_study(folder: Path) -> dict[str, dict]:
    """{name: JSON} of a study's folder; files of a subfolder but `scores` are `subfolder/name`."""
    names = {path: str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.json")}
    names = {path: name.removeprefix("scores/") for path, name in names.items()}
    return {name: read_json(path) for path, name in sorted(names.items(), key=lambda x: x[1])}


def evaluated(files: Mapping[str, dict], within: str = "") -> list[str]:
    """Names of the extractors that `files` has scores of, in the order of the tables."""
    names = [name.removeprefix(within) for name in files if name.startswith(within)]
    found = [n for n in names if "/" not in n and "against_teacher" in files[within + n]]
    return sorted(found, key=lambda n: (list(EXTRACTORS).index(n) if n in EXTRACTORS else 99, n))


def strongest_control(files: Mapping[str, dict]) -> str | None:
    """The control of the highest `miou_per_image`; None if none was measured."""
    controls = {n: v for n, v in files.get("controls", {}).items() if "lse_minus_control" in v}
    scores = {n: v["against_teacher"]["miou_per_image"]["mean"] for n, v in controls.items()}
    return max(scores, key=scores.__getitem__, default=None)


def extractor_table(metrics: Metrics) -> pd.DataFrame:
    """Table 1: a row per study and extractor, the controls, and the teacher under the judge."""
    rows = []
    for study, files in metrics.items():
        for name in evaluated(files):
            row: Row = {"study": study, "masks from": title_of(name)}
            row |= _scores_with_intervals(files[name]["against_teacher"])
            row |= _to_best_nse(files.get("comparison", {}), name)
            if "against_judge" in files[name]:
                row["miou_dataset vs judge"] = files[name]["against_judge"]["miou_dataset"]["mean"]
            fit = files.get(f"{name}_fit", {})
            rows.append(row | {"parameters": fit.get("parameters")})
        for name, value in files.get("controls", {}).items():
            if name == "lse":
                continue
            row = {"study": study, "masks from": f"control: {name}"}
            row |= _scores_with_intervals(value["against_teacher"])
            rows.append(row | {"parameters": value.get("parameters")})
        if "ceiling" in files:
            ceiling = files["ceiling"]["miou_dataset"]["mean"]
            rows.append({"study": study, "masks from": "teacher", "miou_dataset vs judge": ceiling})
    return pd.DataFrame(rows)


def _scores_with_intervals(value: Mapping) -> Row:
    row: Row = {}
    for protocol in PROTOCOLS:
        scores = value[protocol]
        row |= {protocol: scores["mean"]}
        row |= {f"{protocol} low": scores["low"], f"{protocol} high": scores["high"]}
    return row


def _to_best_nse(comparison: Mapping, name: str) -> Row:
    row: Row = {}
    for protocol in PROTOCOLS:
        found = comparison.get(protocol, {}).get("minus_best", {}).get(name)
        if found is not None:
            column = f"% of best NSE, {protocol}"
            row[column] = found["relative"]
            row[f"{column} low"], row[f"{column} high"] = (
                found["relative_low"],
                found["relative_high"],
            )
    return row


def selection_table(metrics: Metrics) -> pd.DataFrame:
    """Table 4: full and selected label lists, both averaged over the finally selected classes."""
    rows = []
    for study, files in metrics.items():
        kept = files.get("selection", {}).get("kept", [])
        for labels in LABELS:
            for name in evaluated(files, f"{labels}/"):
                value = files[f"{labels}/{name}"]["against_teacher"]
                row: Row = {"study": study, "labels": labels, "masks from": title_of(name)}
                for protocol in PROTOCOLS:
                    found = [value[protocol]["per_class"][c] for c in kept]
                    row[protocol] = pd.Series(found, dtype=float).mean()
                rows.append(row)
    return pd.DataFrame(rows)


def selected_class_table(metrics: Metrics, study: str) -> pd.DataFrame:
    """Table 5: IoU per class on the full and the selected list, miou_per_image's protocol."""
    files, columns = metrics[study], {}
    for labels in LABELS:
        for name in evaluated(files, f"{labels}/"):
            scores = files[f"{labels}/{name}"]["against_teacher"]["miou_per_image"]["per_class"]
            columns[f"{title_of(name)}, {labels}"] = in_order(scores)
    table = pd.DataFrame(columns)
    table.index.name = "class"
    selection = files.get("selection", {})
    kept = selection.get("kept", [])
    listed = [*kept, *selection["dropped"]] if "dropped" in selection else list(table.index)
    first = [c for c in table.index if c == "bg" or c not in listed]  # class 0
    table = table.drop(index=first).reset_index()
    table.insert(1, "kept", ["yes" if c in kept else "no" for c in table["class"]])
    return table


def face_class_table(metrics: Metrics, study: str) -> pd.DataFrame:
    """Table 6: IoU per class (miou_per_image's protocol) beside the paper's StyleGAN2-FFHQ.

    The paper's columns are left out if the study's classes are not the paper's.
    """
    files = metrics[study]
    columns: dict[str, dict] = {}
    known = {
        c for n in evaluated(files) for c in files[n]["against_teacher"][PROTOCOLS[0]]["per_class"]
    }
    faces = paper.same_classes(known)
    for name, row in paper.PER_CLASS.items() if faces else ():
        columns[f"paper's {name}"] = dict(row) | {"mean": sum(row.values()) / len(row)}
    for name in evaluated(files):
        scores = files[name]["against_teacher"]["miou_per_image"]
        columns[title_of(name)] = in_order(scores["per_class"]) | {"mean": scores["mean"]}
    classes = paper.CLASSES if faces else in_order(dict.fromkeys(sorted(known), 0.0))
    table = pd.DataFrame(columns).reindex([*classes, "mean"])
    table.index.name = "class"
    return table.reset_index()


def class_table(metrics: Metrics, study: str) -> pd.DataFrame:
    """IoU per class in both protocols: LSE against the teacher and the judge, and the ceiling."""
    files = metrics[study]
    columns = {}
    for protocol in PROTOCOLS:
        for who in ("teacher", "judge"):
            if against := files.get("lse", {}).get(f"against_{who}"):
                columns[f"LSE vs {who}, {protocol}"] = _per_class(against, protocol)
        if "ceiling" in files:
            ceiling = f"teacher vs judge (ceiling), {protocol}"
            columns[ceiling] = _per_class(files["ceiling"], protocol)
    table = pd.DataFrame(columns)
    table.index.name = "class"
    return table.reset_index()


def _per_class(value: Mapping, protocol: str) -> dict:
    return in_order(value[protocol]["per_class"]) | {
        "mean without class 0": value[protocol]["mean"]
    }


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


def _with_interval(mean: float | None, low: float | None, high: float | None) -> str | None:
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
