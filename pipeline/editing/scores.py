"""Scores of an edited sample: is the edit there, and is everything else as it was?"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

Mask = UInt8[np.ndarray, "height width"]
Region = Bool[np.ndarray, "height width"]
Image = UInt8[np.ndarray, "3 height width"]

SCORES = ("iou_region_judge", "iou_region_teacher", "iou_kept_judge", "lab_outside", "success")

# sRGB primaries to XYZ, and the white point D65 of 2 degrees (IEC 61966-2-1).
TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
WHITE = np.array([0.95047, 1.0, 1.08883])


def srgb_to_lab(colors: Float[np.ndarray, "*shape 3"]) -> Float[np.ndarray, "*shape 3"]:
    """sRGB in [0, 1] to CIELAB under D65."""
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    t = linear @ TO_XYZ.T / WHITE
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def lab_change(before: Image, after: Image, where: Region) -> float:
    """Mean CIELAB distance (CIE76) of two images over some pixels."""
    first, second = (srgb_to_lab(np.moveaxis(x, 0, -1)[where] / 255) for x in (before, after))
    return float(np.linalg.norm(first - second, axis=-1).mean()) if where.any() else 0.0


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


def interval(values: np.ndarray, draws: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean, resampling values."""
    rows = np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))
    low, high = np.percentile(values[rows].mean(1), [2.5, 97.5])
    return float(low), float(high)


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
    """{score: mean, low, high} of the scores that the rows have."""
    found = {}
    for name in (*SCORES, "seconds"):
        values = np.array([row[name] for row in rows if name in row])
        if len(values):
            low, high = interval(values)
            mean = float(values.mean())
            found[name] = {"mean": round(mean, 4), "low": round(low, 4), "high": round(high, 4)}
    return found
