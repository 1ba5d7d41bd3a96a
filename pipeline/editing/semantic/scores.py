"""Scores of an edited sample: is the edit there, and is everything else as it was?"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, UInt8

from pipeline.metrics.bootstrap import interval_of_mean
from pipeline.metrics.color import lab

Mask = UInt8[np.ndarray, "height width"]
Region = Bool[np.ndarray, "height width"]
Image = UInt8[np.ndarray, "3 height width"]

SCORES = ("iou_region_judge", "iou_region_teacher", "iou_kept_judge", "lab_outside", "success")


def lab_change(before: Image, after: Image, where: Region) -> float:
    """Mean CIELAB distance (CIE76) of two images over some pixels."""
    if not where.any():
        return 0.0
    first, second = lab(np.stack([before, after]))
    return float(np.linalg.norm(first - second, axis=0)[where].mean())


def region_iou(predicted: Mask, target: Mask, region: Region) -> float:
    """Mean IoU over the classes that the target shows in the region, of the region's pixels."""
    p, t = predicted[region], target[region]
    return mean_iou(p, t, np.unique(t))


def kept_iou(before: Mask, after: Mask, region: Region) -> float:
    """Mean IoU of the masks before and after, outside the region, over the classes before."""
    b, a = before[~region], after[~region]
    return mean_iou(a, b, np.unique(b))


def mean_iou(predicted: np.ndarray, target: np.ndarray, classes: np.ndarray) -> float:
    """Mean over some classes of the IoU of two sets of pixels."""
    pairs = [(predicted == c, target == c) for c in classes]
    return float(np.mean([(p & t).sum() / (p | t).sum() for p, t in pairs])) if pairs else 1.0


def summarize(rows: Sequence[Mapping], baseline: str = "teacher") -> dict:
    """Means with 95 % intervals by kind and method, paired differences, and means by edit.

    rows: as `study.score_study` gives them. A paired difference is a method's score minus the
    baseline's on the same edits and samples.
    """
    found: dict = {"edited": {}, "transferred": {}, "unedited": {}, "paired": {}, "by_edit": {}}
    for kind in ("unedited", "edited", "transferred"):
        ours = [row for row in rows if row["kind"] == kind]
        for method in dict.fromkeys(row["method"] for row in ours):
            chosen = [row for row in ours if row["method"] == method]
            found[kind][method] = {"count": len(chosen)} | _statistics(chosen)
    edited = [row for row in rows if row["kind"] == "edited"]
    base = {_key(row): row for row in edited if row["method"] == baseline}
    for method in found["edited"]:
        ours = [row for row in edited if row["method"] == method and _key(row) in base]
        if method != baseline and ours:
            pairs = [{s: row[s] - base[_key(row)][s] for s in SCORES} for row in ours]
            found["paired"][f"{method} - {baseline}"] = _statistics(pairs)
    for row in rows:
        if row["kind"] != "transferred":
            cell = found["by_edit"].setdefault(row["edit"], {}).setdefault(row["method"], [])
            cell.append(row["iou_region_judge"])
    for methods in found["by_edit"].values():
        methods |= {method: round(float(np.mean(v)), 4) for method, v in methods.items()}
    return found


def _key(row: Mapping) -> tuple:
    return row["edit"], row["row"]


def _statistics(rows: Sequence[Mapping]) -> dict:
    """{score: mean, low, high} of each score."""
    found = {}
    for name in SCORES:
        values = np.array([row[name] for row in rows])
        low, high = interval_of_mean(values)
        mean = float(values.mean())
        found[name] = {"mean": round(mean, 4), "low": round(low, 4), "high": round(high, 4)}
    return found
