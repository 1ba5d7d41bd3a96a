"""What probed directions tell, as JSON: each number beside its control, with a 95 % interval.

Intervals resample the samples, unless they say otherwise.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

from pipeline.editing.directions.mask_changes import (
    KINDS,
    NAMELESS,
    POSES,
    mean_seen,
    name_of,
    overall_selectivity,
    selectivity,
    statistic_names,
    z_scores,
)
from pipeline.editing.directions.method import Factors
from pipeline.metrics.bootstrap import DRAWS, LEVELS, interval, percentiles, resample

Changes = Mapping[str, np.ndarray]  # of `direction_probes.measure`, [direction, sample, ...]
Rows = Int[np.ndarray, " sample"]
Drawn = Float[np.ndarray, "draw direction statistic"]  # z, of resampled samples


def spearman(x: Float[np.ndarray, " item"], y: Float[np.ndarray, " item"]) -> float:
    """Rank correlation; 0 where one of the two does not vary."""
    a, b = rankdata(x), rankdata(y)
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale > 0 else 0.0


def estimate(statistic: Callable[[Rows], float], samples: int) -> dict:
    """{mean: over all samples, low, high} of a statistic of some rows; of one, mean alone."""
    return _as_json(interval(statistic, samples))


def numbers(value: float, drawn: Sequence[float] | np.ndarray) -> dict:
    """{mean: value, low, high} of a statistic and its draws."""
    return _as_json((value, *percentiles(np.array(drawn))))


def _as_json(found: tuple[float, float, float]) -> dict:
    return {name: rounded(v) for name, v in zip(("mean", "low", "high"), found, strict=True)}


def rounded(value: float) -> float | None:
    """Four digits, or None for NaN, which JSON does not have."""
    return None if np.isnan(value) else round(float(value), 4)


def left_out_scores(effects: Float[np.ndarray, "random statistic"]) -> np.ndarray:
    """Each random direction's z against the others: what chance gives."""
    keep = ~np.eye(len(effects), dtype=bool)
    return np.concatenate(
        [z_scores(effects[[i]], effects[others]) for i, others in enumerate(keep)]
    )


def chance_of_largest(scores: Float[np.ndarray, "random statistic"]) -> float:
    """The magnitude that a random direction's largest z exceeds once in twenty times."""
    largest = np.where(np.isnan(scores), 0, np.abs(scores)).max(1)
    return float(np.percentile(largest, 95))


def range_report(
    factors: Factors,
    spread: Float[np.ndarray, " direction"],  # standard deviation of w along each
    top: Changes,  # of the first directions
    control: Changes,  # of random directions
    classes: Sequence[str],
    obvious: float,  # times the mean change of random directions
    shown: int,  # directions to describe one by one
) -> dict:
    """What the directions of a layer range do: premise, table 3, names and re-scoring.

    z is in standard deviations of random directions; the interval of a premise resamples
    directions, too.
    """
    num, names = len(classes), statistic_names(classes)
    z, drawn = _scores(top, control), _drawn_scores(top, control)
    chance = left_out_scores(mean_seen(control["effects"], 1))
    limit = chance_of_largest(chance)
    found = [name_of(*row, names, limit) for row in zip(z, _surest(z, drawn), strict=True)]
    named, measured = [name for name, _ in found], len(z)
    return {
        "trace": round(float(factors.eigenvalues.sum()), 3),
        "measured": measured,
        "names": named,
        "largest_z_by_chance": round(limit, 2),
        "named": sum(name != NAMELESS for name in named),
        "premise": {
            what: _premise(factors.eigenvalues[:measured], top[f"{what}_change"])
            for what in ("mask", "image")
        }
        | {"spread_of_w": round(spearman(factors.eigenvalues[:measured], spread[:measured]), 4)},
        "change": {"sefa": _mean_changes(top), "random": _mean_changes(control)},
        "obvious": obvious_shares(top, control, obvious),
        "selectivity": {
            "sefa": numbers(
                overall_selectivity(z[:, :num]), [overall_selectivity(v[:, :num]) for v in drawn]
            ),
            "random": rounded(overall_selectivity(chance[:, :num])),
        },
        "directions": [
            _one(i, found[i], factors, spread, z[i], drawn[:, i], top, classes)
            for i in range(min(shown, measured))
        ],
    }


def _scores(top: Changes, control: Changes, rows: Rows | slice = slice(None)) -> np.ndarray:
    return z_scores(
        mean_seen(top["effects"][:, rows], 1), mean_seen(control["effects"][:, rows], 1)
    )


def _drawn_scores(top: Changes, control: Changes) -> Drawn:
    """z under resampled samples; no draws of a single sample."""
    _, samples, statistics = top["effects"].shape
    rows = resample(samples) if samples > 1 else np.zeros((0, samples), int)
    shape = len(rows), len(top["effects"]), statistics
    return np.array([_scores(top, control, drawn) for drawn in rows]).reshape(shape)


def _surest(z: np.ndarray, drawn: Drawn) -> Float[np.ndarray, "direction statistic"]:
    """Of each z, the end of its interval nearer to 0; 0 if it holds 0."""
    ends = np.nan_to_num(drawn if len(drawn) else z[None])
    low, high = np.percentile(ends, LEVELS, axis=0)
    return np.maximum(0, np.maximum(low, -high))


def _premise(eigenvalues: np.ndarray, change: Float[np.ndarray, "direction sample"]) -> dict:
    """Spearman of eigenvalue and change; its interval resamples directions and samples."""
    rng, (num, samples) = np.random.default_rng(0), change.shape
    drawn = []
    for _ in range(DRAWS):
        few, rows = rng.integers(0, num, num), rng.integers(0, samples, samples)
        drawn.append(spearman(eigenvalues[few], change[few][:, rows].mean(1)))
    return numbers(spearman(eigenvalues, change.mean(1)), drawn)


def mean_change(changes: Float[np.ndarray, "direction sample"]) -> dict:
    """The mean over all directions and samples, with its interval over samples."""
    return estimate(lambda rows: float(changes[:, rows].mean()), changes.shape[1])


def _mean_changes(changes: Changes) -> dict:
    return {what: mean_change(changes[f"{what}_change"]) for what in ("mask", "image")}


def obvious_shares(top: Changes, control: Changes, times: float) -> dict:
    """Share of directions that change `times` what random ones do on average, and the limits.

    either: the mask or the image.
    """
    limits = {w: times * float(control[f"{w}_change"].mean()) for w in ("mask", "image")}
    found: dict = {"limits": {what: round(limit, 4) for what, limit in limits.items()}}
    for who, changes in (("sefa", top), ("random", control)):
        above = {w: changes[f"{w}_change"].mean(1) > limit for w, limit in limits.items()}
        above["either"] = above["mask"] | above["image"]
        found[who] = {what: round(float(values.mean()), 4) for what, values in above.items()}
    return found


def _one(
    index: int,
    named: tuple[str, int],  # its name, and the statistic that it is named by
    factors: Factors,
    spread: np.ndarray,
    z: Float[np.ndarray, " statistic"],
    drawn: Float[np.ndarray, "draw statistic"],
    top: Changes,
    classes: Sequence[str],
) -> dict:
    """A direction: its numbers, its name, and z by class and kind."""
    num, (name, largest) = len(classes), named
    kinds = z[: num * len(KINDS)].reshape(len(KINDS), num)
    by_class = {
        kind: {c: rounded(v) for c, v in zip(classes, row, strict=True) if not np.isnan(v)}
        for kind, row in zip(KINDS, kinds, strict=True)
    }
    return {
        "index": index,
        "name": name,
        "eigenvalue": rounded(factors.eigenvalues[index]),
        "gap": rounded(factors.gaps[index]),
        "spread_of_w": rounded(spread[index]),
        "z_of_name": numbers(z[largest], drawn[:, largest]),
        "selectivity": rounded(selectivity(z[None, :num])[0]),
        "mask_change": mean_change(top["mask_change"][[index]]),
        "image_change": mean_change(top["image_change"][[index]]),
        "z": by_class | {p: rounded(v) for p, v in zip(POSES, z[len(KINDS) * num :], strict=True)},
    }
