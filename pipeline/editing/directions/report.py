"""What probed directions tell, as JSON: each number beside its control, with a 95 % interval.

Intervals resample the samples, unless they say otherwise.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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
from pipeline.editing.directions.method import (
    Factors,
    Vector,
    Vectors,
    chance_distances,
    fit_boundary,
    nearest,
)
from pipeline.metrics.bootstrap import percentiles

DRAWS = 300
Changes = Mapping[str, np.ndarray]  # of `direction_probes.measure`, [direction, sample, ...]
Rows = Int[np.ndarray, " sample"]


def spearman(x: Float[np.ndarray, " item"], y: Float[np.ndarray, " item"]) -> float:
    """Rank correlation; 0 where one of the two does not vary."""
    a, b = rankdata(x), rankdata(y)
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale > 0 else 0.0


def interval(statistic: Callable[[Rows], float], samples: int, seed: int = 0) -> dict:
    """{mean: over all samples, low, high} of a statistic of some rows; of one, mean alone."""
    if samples == 1:
        return _numbers(statistic(np.arange(1)), [])
    rng = np.random.default_rng(seed)
    drawn = [statistic(rng.integers(0, samples, samples)) for _ in range(DRAWS)]
    return _numbers(statistic(np.arange(samples)), drawn)


def _numbers(value: float, drawn: Sequence[float] | np.ndarray) -> dict:
    low, high = percentiles(np.array(drawn))
    found = {"mean": value, "low": low, "high": high}
    return {name: None if np.isnan(v) else round(float(v), 4) for name, v in found.items()}


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
    samples, num = top["effects"].shape[1], len(classes)
    names = statistic_names(classes)
    z = z_scores(mean_seen(top["effects"], 1), mean_seen(control["effects"], 1))
    chance = left_out_scores(mean_seen(control["effects"], 1))
    limit = chance_of_largest(chance)
    found = [name_of(*row, names, limit) for row in zip(z, _surest(top, control), strict=True)]
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
        "change": {
            who: {
                what: interval(lambda r, v=v[f"{what}_change"]: float(v[:, r].mean()), n)
                for what, n in (("mask", samples), ("image", v["image_change"].shape[1]))
            }
            for who, v in (("sefa", top), ("random", control))
        },
        "obvious": obvious_shares(top, control, obvious),
        "selectivity": {
            "sefa": interval(
                lambda r: overall_selectivity(_scores(top, control, r)[:, :num]), samples
            ),
            "random": rounded(overall_selectivity(chance[:, :num])),
        },
        "directions": [
            _one(i, factors, spread, z[i], *found[i], top, control, classes)
            for i in range(min(shown, measured))
        ],
    }


def _scores(top: Changes, control: Changes, rows: Rows) -> np.ndarray:
    return z_scores(
        mean_seen(top["effects"][:, rows], 1), mean_seen(control["effects"][:, rows], 1)
    )


def _premise(eigenvalues: np.ndarray, change: Float[np.ndarray, "direction sample"]) -> dict:
    """Spearman of eigenvalue and change; its interval resamples directions and samples."""
    rng, (num, samples) = np.random.default_rng(0), change.shape
    drawn = []
    for _ in range(DRAWS):
        few, rows = rng.integers(0, num, num), rng.integers(0, samples, samples)
        drawn.append(spearman(eigenvalues[few], change[few][:, rows].mean(1)))
    return _numbers(spearman(eigenvalues, change.mean(1)), drawn)


def _surest(top: Changes, control: Changes) -> np.ndarray:
    """Of each z [direction, statistic], the end of its interval nearer to 0; 0 if it holds 0."""
    rng, samples = np.random.default_rng(0), top["effects"].shape[1]
    drawn = [_scores(top, control, rng.integers(0, samples, samples)) for _ in range(DRAWS)]
    low, high = np.percentile(np.nan_to_num(drawn), [2.5, 97.5], axis=0)
    return np.maximum(0, np.maximum(low, -high))


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
    factors: Factors,
    spread: np.ndarray,
    z: np.ndarray,
    name: str,
    largest: int,  # the statistic that it is named by
    top: Changes,
    control: Changes,
    classes: Sequence[str],
) -> dict:
    """A direction: its numbers, its name, and z by class and kind."""
    num = len(classes)
    samples, few = (top[f"{what}_change"].shape[1] for what in ("mask", "image"))

    def score(rows: Rows) -> float:
        return float(_scores(top, control, rows)[index, largest])

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
        "z_of_name": interval(score, samples),
        "selectivity": rounded(selectivity(z[None, :num])[0]),
        "mask_change": interval(lambda r: float(top["mask_change"][index, r].mean()), samples),
        "image_change": interval(lambda r: float(top["image_change"][index, r].mean()), few),
        "z": by_class | {p: rounded(v) for p, v in zip(POSES, z[len(KINDS) * num :], strict=True)},
    }


def rounded(value: float) -> float | None:
    """Four digits, or None for NaN, which JSON does not have."""
    return None if np.isnan(value) else round(float(value), 4)


@dataclass(frozen=True)
class Boundary:
    """A linear boundary between the samples that show least and most of a trait."""

    trait: str
    normal: Vector  # unit, towards more
    low: Float[np.ndarray, "sample w_dim"]
    high: Float[np.ndarray, "sample w_dim"]


def draw_boundaries(
    w: Float[np.ndarray, "sample w_dim"],
    traits: Float[np.ndarray, "sample trait"],
    names: Sequence[str],
    share: float,  # of the samples, at either end
    ridge: float,
) -> list[Boundary]:
    """A boundary for every trait whose two ends differ in all samples."""
    found = []
    for name, values in zip(names, traits.T, strict=True):
        rows = np.flatnonzero(~np.isnan(values))
        count = max(2, round(share * len(rows)))
        order = rows[np.argsort(values[rows], kind="stable")]
        low, high = order[:count], order[-count:]
        if len(rows) >= 2 * count and values[low].max() < values[high].min():
            normal = fit_boundary(w[low], w[high], ridge)
            found.append(Boundary(name, normal, w[low], w[high]))
    return found


def boundaries_report(
    boundaries: Sequence[Boundary],
    methods: Mapping[str, Vectors],  # candidates of each
    population: Float[np.ndarray, "sample w_dim"],  # that the boundaries were drawn from
    held_out: tuple[np.ndarray, np.ndarray],  # w and traits of samples that no fit has seen
    names: Sequence[str],
    ridge: float,
) -> dict:
    """Table 1: cosine distance of each boundary to the nearest direction, beside two controls.

    chance: of a normal that points anywhere. shuffled: of boundaries between groups drawn by
    chance, whose normals lie where w varies most, as those of any trait do.
    """
    w, traits = held_out
    dim = population.shape[1]
    chance = {n: chance_distances(dim, n) for n in {len(v) for v in methods.values()}}
    rows, shuffled = {}, {}
    for one in boundaries:
        count = len(one.low)
        if count not in shuffled:
            normals = _by_chance(population, count, ridge)
            shuffled[count] = {name: _distances(normals, v) for name, v in methods.items()}
        refits = _refits(one, ridge)
        rows[one.trait] = {
            "samples": count,
            "held_out_spearman": _order(one.normal, w, traits[:, list(names).index(one.trait)]),
            "methods": {
                name: _distance(one.normal, v, refits, chance[len(v)], shuffled[count][name])
                for name, v in methods.items()
            },
        }
    return rows


def _by_chance(population: np.ndarray, count: int, ridge: float) -> list[Vector]:
    rng = np.random.default_rng(1)
    drawn = [rng.permutation(len(population))[: 2 * count] for _ in range(DRAWS)]
    return [
        fit_boundary(population[rows[:count]], population[rows[count:]], ridge) for rows in drawn
    ]


def _distances(normals: Sequence[Vector], vectors: Vectors) -> np.ndarray:
    return 1 - np.abs(np.stack(normals) @ vectors.T).max(1)


def _order(normal: Vector, w: np.ndarray, values: np.ndarray) -> dict:
    known = np.flatnonzero(~np.isnan(values))
    along, shown = w[known] @ normal, values[known]
    return interval(lambda rows: spearman(along[rows], shown[rows]), len(known))


def _refits(one: Boundary, ridge: float) -> list[Vector]:
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(one.low), (DRAWS, 2, len(one.low)))
    return [fit_boundary(one.low[a], one.high[b], ridge) for a, b in drawn]


def _distance(
    normal: Vector,
    vectors: Vectors,
    refits: Sequence[Vector],
    chance: np.ndarray,
    shuffled: np.ndarray,
) -> dict:
    distance, index = nearest(normal, vectors)
    below = (1 + (shuffled <= distance).sum()) / (1 + len(shuffled))
    return _numbers(distance, _distances(refits, vectors)) | {
        "index": index,
        "candidates": len(vectors),
        "chance": round(float(chance.mean()), 4),
        "chance_sd": round(float(chance.std()), 4),
        "shuffled": round(float(shuffled.mean()), 4),
        "p_shuffled": round(float(below), 4),
    }
