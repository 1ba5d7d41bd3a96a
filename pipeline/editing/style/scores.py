"""Curves of In-MSE against Out-MSE, and methods compared where their In-MSE is the same.

Collins et al., "Editing in Style" (CVPR 2020), sec. 4.2 and fig 7. All errors are squared CIELAB.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from pipeline.metrics.bootstrap import interval_of_mean

Key = tuple[str, str, float]  # part, method, strength
PerPair = Float[np.ndarray, " pair"]

BASELINE = "global"


def at_level(
    inside: Float[np.ndarray, " point"], values: Float[np.ndarray, "point ..."], level: float
) -> np.ndarray | None:
    """`values` [point, ...] where the curve from nothing (0) reaches an In-MSE; None: it does not.

    Linear between the two points of nearest In-MSE.
    """
    order = np.argsort(inside, kind="stable")
    x = np.concatenate([[0.0], np.asarray(inside)[order]])
    y = np.concatenate([np.zeros_like(values[:1]), values[order]])
    if level > x[-1]:
        return None
    right = max(1, int(np.searchsorted(x, level)))
    span = x[right] - x[right - 1]
    share = (level - x[right - 1]) / span if span > 0 else 0.0
    return np.asarray(y[right - 1] + share * (y[right] - y[right - 1]))


def curves(keys: Sequence[Key], parts: Sequence[str], pieces: Sequence[Mapping]) -> dict:
    """{part: {method: [point]}}: means over pairs, also relative to the reference's own errors."""
    found: dict = {part: {} for part in parts}
    reference = np.stack([piece["reference"] for piece in pieces])  # [pair, part, in and out]
    for j, (part, method, strength) in enumerate(keys):
        end = reference[:, parts.index(part)]
        values = np.stack([[p["inside"][j], p["outside"][j]] for p in pieces])
        mean, shares = values.mean(0), values.mean(0) / end.mean(0)
        names = ("in_mse", "out_mse", "in_share", "out_share")
        numbers = (round(float(v), 5) for v in (*mean, *shares))
        point = {"strength": strength} | dict(zip(names, numbers, strict=True))
        found[part].setdefault(method, []).append(point)
    return found


def matched(
    keys: Sequence[Key], parts: Sequence[str], pieces: Sequence[Mapping], share: float
) -> dict[str, dict[str, PerPair]]:
    """{part: {method: Out-MSE of each pair}} at an In-MSE of `share` times the reference's.

    NaN where a method does not come that far.
    """
    found: dict = {part: {} for part in parts}
    for part, method in dict.fromkeys((p, m) for p, m, _ in keys):
        at = [j for j, (p, m, _) in enumerate(keys) if (p, m) == (part, method)]
        values = []
        for piece in pieces:
            level = share * piece["reference"][parts.index(part)][0]
            out = at_level(piece["inside"][at], piece["outside"][at], level)
            values.append(np.nan if out is None else float(out))
        found[part][method] = np.array(values)
    return found


def matched_maps(
    keys: Sequence[Key], parts: Sequence[str], pieces: Sequence[Mapping], share: float
) -> dict[tuple[str, str], Float[np.ndarray, "y x"]]:
    """Mean error maps {(part, method)} over the pairs that reach the same level; else no entry."""
    found = {}
    for part, method in dict.fromkeys((p, m) for p, m, _ in keys):
        at = [j for j, (p, m, _) in enumerate(keys) if (p, m) == (part, method)]
        maps = []
        for piece in pieces:
            level = share * piece["reference"][parts.index(part)][0]
            there = at_level(piece["inside"][at], piece["maps"][at], level)
            maps += [] if there is None else [there]
        if maps:
            found[part, method] = np.mean(maps, 0)
    return found


def summarize(outs: Mapping[str, Mapping[str, Mapping[str, PerPair]]]) -> dict:
    """Out-MSE, its ratio to global interpolation's, and the trained ratio over the control's.

    outs: {kind: {part: {method: Out-MSE of each pair}}}. Ratios are geometric means over pairs, and
    pairs are resampled together.
    """
    found: dict = {"matched": {}, "against_control": {}}
    ratios: dict = {}
    for kind, parts in outs.items():
        for part, methods in parts.items():
            for method, values in methods.items():
                # Poisson blending changes nothing outside: it has no logarithm, and no ratio.
                ratio = np.log(np.where(values > 0, values, np.nan) / methods[BASELINE])
                ratios[kind, part, method] = ratio
                cell = {"out_mse": statistics(values)}
                if method != BASELINE:
                    cell["ratio"] = statistics(ratio, np.exp)
                found["matched"].setdefault(kind, {}).setdefault(part, {})[method] = cell
    for (kind, part, method), ratio in ratios.items():
        if kind == "control" and method != BASELINE:
            difference = ratios["trained", part, method] - ratio
            row = found["against_control"].setdefault(part, {})
            row[method] = statistics(difference, np.exp)
    return found


def statistics(values: PerPair, scale: Callable[[float], float] = lambda x: x) -> dict:
    """Count, mean and 95 % bootstrap interval of the pairs that have a value."""
    there = values[np.isfinite(values)]
    if not len(there):
        return {"pairs": 0, "mean": None, "low": None, "high": None}
    numbers = (float(there.mean()), *interval_of_mean(there))
    mean, low, high = (round(float(scale(v)), 4) for v in numbers)
    return {"pairs": len(there), "mean": mean, "low": low, "high": high}
