"""Tables and findings of extractors: scores, label lists and classes, beside the paper's."""

from collections.abc import Iterator, Mapping

import pandas as pd

from pipeline.reporting import paper
from pipeline.reporting.tables import (
    EXTRACTORS,
    PROTOCOLS,
    TWO_PROTOCOLS,
    Metrics,
    cpu_seconds,
    in_order,
    points,
)

LABELS = ("full", "selected")
PAPER_GAP = 3.5  # %: what the paper claims that an LSE loses to the best NSE, at most

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


def all_tables(metrics: Metrics) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """(file name, title, note, table) of each table."""
    yield "table1", "Table 1: extractors", TABLE_1, extractor_table(metrics)
    yield "table4", "Table 4: label lists", TABLE_4, selection_table(metrics)
    for study in metrics:
        title = f"Table 5: label lists, {study}"
        yield f"table5_{study}", title, TABLE_5, selected_class_table(metrics, study)
        title = f"Table 6: IoU per class, {study}"
        yield f"table6_{study}", title, TABLE_6, face_class_table(metrics, study)
        title = f"IoU per class against teacher and judge, {study}"
        yield f"classes_{study}", title, TWO_PROTOCOLS, class_table(metrics, study)


def findings(files: Mapping[str, dict]) -> list[str]:
    """Sentences about the LSE beside NSEs and baselines, and about the kept classes."""
    return [*_to_nse(files), *_to_control(files), *_to_selection(files)]


def evaluated(files: Mapping[str, dict], within: str = "") -> list[str]:
    """Names of the extractors that `files` has scores of, in the order of the tables."""
    names = [name.removeprefix(within) for name in files if name.startswith(within)]
    found = [n for n in names if "/" not in n and "against_teacher" in files[within + n]]
    return sorted(found, key=lambda n: (list(EXTRACTORS).index(n) if n in EXTRACTORS else 99, n))


def extractor_table(metrics: Metrics) -> pd.DataFrame:
    """Table 1: a row per study and extractor, the controls, and the teacher under the judge."""
    rows = []
    for study, files in metrics.items():
        for name in evaluated(files):
            row = {"study": study, "masks from": EXTRACTORS.get(name, name)}
            row |= _scores_with_intervals(files[name]["against_teacher"])
            row |= _to_best_nse(files.get("comparison", {}), name)
            if "against_judge" in files[name]:
                row["miou_dataset vs judge"] = files[name]["against_judge"]["miou_dataset"]["mean"]
            fit = files.get(f"{name}_fit", {})
            row |= {"parameters": fit.get("parameters"), "CPU s": cpu_seconds(files, f"fit_{name}")}
            rows.append(row)
        for name, value in files.get("controls", {}).items():
            if name == "lse":
                continue
            row = {"study": study, "masks from": f"control: {name}"}
            row |= _scores_with_intervals(value["against_teacher"])
            row |= {
                "parameters": value.get("parameters"),
                "CPU s": files.get("costs/controls", {}).get(name),
            }
            rows.append(row)
        if "ceiling" in files:
            ceiling = files["ceiling"]["miou_dataset"]["mean"]
            rows.append({"study": study, "masks from": "teacher", "miou_dataset vs judge": ceiling})
    return pd.DataFrame(rows)


def _scores_with_intervals(value: Mapping) -> dict[str, float]:
    row = {}
    for protocol in PROTOCOLS:
        scores = value[protocol]
        row |= {protocol: scores["mean"]}
        row |= {f"{protocol} low": scores["low"], f"{protocol} high": scores["high"]}
    return row


def _to_best_nse(comparison: Mapping, name: str) -> dict[str, float]:
    row = {}
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
                row = {"study": study, "labels": labels, "masks from": EXTRACTORS.get(name, name)}
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
            columns[f"{EXTRACTORS.get(name, name)}, {labels}"] = in_order(scores)
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
        columns[EXTRACTORS.get(name, name)] = in_order(scores["per_class"]) | {
            "mean": scores["mean"]
        }
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


def _to_nse(files: Mapping[str, dict]) -> list[str]:
    lines = []
    for protocol, value in files.get("comparison", {}).items():
        best, row = value["best"], value["minus_best"]["lse"]
        fit = files.get(f"{best}_fit", {})
        held = "within" if row["relative"] >= -PAPER_GAP else "outside"
        seen = f"{fit.get('passes', 0):.3g} windows a sample{_width(fit)}"
        lines.append(
            f"the LSE's `{protocol}` differs by {row['relative']:+.1f} % "
            f"({row['relative_low']:+.1f} to {row['relative_high']:+.1f}) from the best NSE's "
            f"({EXTRACTORS[best]}, trained on {seen}): {held} the paper's claim of "
            f"{PAPER_GAP} % below at most."
        )
    return lines


def _width(fit: Mapping) -> str:
    return f", {fit['width']} channels wide" if fit.get("width") else ""


def strongest_control(files: Mapping[str, dict]) -> str | None:
    """The control of the highest `miou_per_image`; None if none was measured."""
    controls = {n: v for n, v in files.get("controls", {}).items() if "lse_minus_control" in v}
    scores = {n: v["against_teacher"]["miou_per_image"]["mean"] for n, v in controls.items()}
    return max(scores, key=scores.__getitem__, default=None)


def _to_control(files: Mapping[str, dict]) -> list[str]:
    if not (best := strongest_control(files)):
        return []
    gaps = files["controls"][best]["lse_minus_control"]["against_teacher"]
    words = [f"{points(gap)} in `{protocol}`" for protocol, gap in gaps.items()]
    return [f"the LSE minus the strongest control, `{best}`: {' and '.join(words)}, points."]


def _to_selection(files: Mapping[str, dict]) -> list[str]:
    found = files.get("selection")
    if not found:
        return []
    dropped = ", ".join(found["dropped"]) or "none"
    number = len(found["kept"]) + len(found["dropped"])
    return [
        f"category selection keeps {len(found['kept'])} of {number} classes "
        f"(IoU above {found['threshold']:g} %); dropped: {dropped}."
    ]
