"""Scores of few-shot extractors, as table rows and over repeats."""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.analysis.fewshot.fits import Fitted
from pipeline.data.inputs import Study
from pipeline.extractors.networks import LSE
from pipeline.extractors.prediction import confusions
from pipeline.metrics.iou import dataset_scores, intersection_union, per_image_scores
from pipeline.runtime.files import atomic
from pipeline.runtime.pieces import Kind

PIECES = Kind("fewshot_scores", __name__)
IOU = "iou_per_image of "  # a class: a column of the table
TIME = "cpu_seconds"  # of a row's fit; kept apart from the scores


def score(study: Study, fitted: Sequence[Fitted], workers: int) -> list[dict]:
    """A table row each, scored on the test split.

    The split is synthesized once for all extractors that no earlier run, or other stage, scored.
    """
    counted = _confusions(study, [one.extractor for one in fitted], workers)
    rows = []
    for one, confusion in zip(fitted, counted, strict=True):
        pair = intersection_union(confusion)
        per_image = per_image_scores(*pair)
        iou = zip(one.extractor.classes[1:], per_image.per_class[1:], strict=True)
        rows.append(
            one.task.facts
            | {
                "labeled_pixels": one.labeled_pixels,
                "miou_per_image": round(100 * per_image.mean, 3),
                "miou_dataset": round(100 * dataset_scores(*pair).mean, 3),
                TIME: round(one.cpu_seconds, 2),
            }
            | {IOU + name: round(100 * float(value), 3) for name, value in iou}
        )
    return rows


def _confusions(study: Study, extractors: Sequence[LSE], workers: int) -> list[np.ndarray]:
    """Confusion matrices [sample, class, class] of each extractor on the test split."""
    facts: list[dict] = [{"study": study.facts, "extractor": _digest(e)} for e in extractors]
    found = [PIECES.read(one) for one in facts]
    missing = {one["extractor"]: i for i, one in enumerate(facts) if found[i] is None}
    made: dict[str, np.ndarray] = {}  # by the extractor's digest
    if missing:
        new = [extractors[i] for i in missing.values()]
        counted = confusions(new, study.source, study.masks, "test", workers)
        for (digest, i), confusion in zip(missing.items(), counted, strict=True):
            PIECES.write(facts[i], {"confusion": confusion})
            made[digest] = confusion
    return [
        made[one["extractor"]] if arrays is None else arrays["confusion"]
        for one, arrays in zip(facts, found, strict=True)
    ]


def _digest(extractor: LSE) -> str:
    """16 hex digits over the weights."""
    found = hashlib.sha256()
    for weight in extractor.weights:
        found.update(weight.detach().cpu().numpy().tobytes())
    return found.hexdigest()[:16]


def statistics(values: Sequence[float]) -> dict:
    """Mean, sample standard deviation and the largest deviation from the mean (the paper's +-)."""
    found = np.asarray(values, float)
    spread = found.std(ddof=1) if len(found) > 1 else 0.0
    return {
        "mean": round(float(found.mean()), 3),
        "standard_deviation": round(float(spread), 3),
        "maximum_deviation": round(float(np.abs(found - found.mean()).max()), 3),
    }


def summary(rows: Sequence[dict], full: Mapping) -> dict:
    """Both protocols over repeats, with the ratio to the fully fitted LSE's score in percent.

    `full` is that LSE's scores against the teacher, as evaluate_extractor writes them.
    """
    found: dict = {"repeats": len(rows), "labeled_pixels": rows[0]["labeled_pixels"]}
    for name in ("miou_per_image", "miou_dataset"):
        values = statistics([row[name] for row in rows])
        best = full["against_teacher"][name]["mean"]
        found[name] = values | {"of_full_lse": round(100 * values["mean"] / best, 2)}
    found["iou_per_image"] = {
        key.removeprefix(IOU): round(float(np.mean([row[key] for row in rows])), 3)
        for key in rows[0]
        if key.startswith(IOU) and not np.isnan(rows[0][key])  # NaN: in no test image
    }
    return found


def fit_costs(rows: Sequence[dict]) -> dict[str, dict[str, float]]:
    """CPU seconds of the fits on full masks, all repeats together, by shots."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["annotation"] == "full" and row["candidates"] == "pool":
            spent = found.setdefault(f"fits of {row['shots']}-shot LSEs", {TIME: 0.0})
            spent[TIME] = round(spent[TIME] + row[TIME], 2)
    return found


def report(rows: Sequence[dict], full: Mapping) -> dict:
    """Scores over repeats: full masks by shots, strokes by samples and budget, selections.

    A selection's `gain` is its paired difference to random, on the same halves of the pool.
    """
    groups: dict[tuple, list[dict]] = {}
    key: tuple
    for row in rows:
        if row["candidates"] == "half":
            key = "selection", row["selection"], row["shots"]
        elif row["annotation"] == "strokes":
            key = "strokes", f"{row['shots']} samples", row["labeled_pixels"]
        else:
            key = "full", row["shots"]
        groups.setdefault(key, []).append(row)
    found: dict = {}
    for (*path, last), group in groups.items():
        node = found
        for name in path:
            node = node.setdefault(name, {})
        node[str(last)] = summary(group, full)
        random = groups.get(("selection", "random", last))
        if path[0] == "selection" and path[1] != "random" and random:
            node[str(last)]["gain"] = {
                name: _gain([r[name] for r in group], [r[name] for r in random])
                for name in ("miou_per_image", "miou_dataset")
            }
    return found


def _gain(ours: Sequence[float], random: Sequence[float]) -> dict:
    """Mean of paired differences over repeats, and the reach of its 95 % t interval."""
    from scipy.stats import t

    differences, num = np.subtract(ours, random), len(ours)
    if num < 2:
        return {"mean": round(float(differences.mean()), 3), "plus_minus": None}
    reach = t.ppf(0.975, num - 1) * differences.std(ddof=1) / num**0.5
    return {"mean": round(float(differences.mean()), 3), "plus_minus": round(float(reach), 3)}


def write_table(path: str | Path, rows: Sequence[dict]) -> None:
    """Write the rows as CSV, atomically, without the time, which no other machine would repeat."""
    with atomic(path) as partial, open(partial, "w", newline="") as file:
        names = [name for name in rows[0] if name != TIME]
        table = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
