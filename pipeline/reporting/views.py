"""Metric JSON as the panels of a figure."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pipeline.extractors.registry import EXTRACTORS
from pipeline.reporting.curves import Line, Panel


def training_panel(files: Mapping[str, dict]) -> Panel:
    """Validation mIoU of every extractor along its fit, as in fig 8 of Xu & Zheng.

    Over the share of each fit that is done: a convex solver and a training loop have no other axis
    in common that is the same on every machine.
    """
    lines = {}
    for name, form in EXTRACTORS.items():
        fit = files.get(f"{name}_fit", {})
        curve = fit.get("validation_curve") or fit.get("training_curve")
        if not curve:
            continue
        at = [point.get("iteration", point.get("passes")) for point in curve]
        done = 100 * np.array(at, float) / at[-1]
        lines[form.title] = Line(done.tolist(), [_best(point) for point in curve])
    return Panel("Validation along the fit", "share of the fit, %", "mIoU on validation, %", lines)


def _best(point: Mapping) -> float:
    """The mIoU at a point; of an LSE, that of the best L2."""
    found = point["miou"]
    return max(found.values()) if isinstance(found, Mapping) else found


def confusion_shares(rows: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """Shares [target, predicted] of rows (actual, predicted); NaN for a class without rows."""
    counts = pd.crosstab(rows["actual"], rows["predicted"])
    names = list(classes)
    pixels = counts.reindex(index=names, columns=names, fill_value=0).to_numpy(float)
    with np.errstate(invalid="ignore"):
        return pixels / pixels.sum(1, keepdims=True)
