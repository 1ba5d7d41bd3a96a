"""Boundaries between samples that show little and much of a trait, and the directions near them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pipeline.editing.directions.method import (
    Vector,
    Vectors,
    chance_distances,
    fit_boundary,
    nearest,
)
from pipeline.editing.directions.report import estimate, numbers, spearman

SHUFFLES = 300  # boundaries between groups drawn by chance
REFITS = 300  # draws of an interval, fewer than elsewhere: each solves a linear system per trait


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
    drawn = [rng.permutation(len(population))[: 2 * count] for _ in range(SHUFFLES)]
    return [
        fit_boundary(population[rows[:count]], population[rows[count:]], ridge) for rows in drawn
    ]


def _distances(normals: Sequence[Vector], vectors: Vectors) -> np.ndarray:
    return 1 - np.abs(np.stack(normals) @ vectors.T).max(1)


def _order(normal: Vector, w: np.ndarray, values: np.ndarray) -> dict:
    known = np.flatnonzero(~np.isnan(values))
    along, shown = w[known] @ normal, values[known]
    return estimate(lambda rows: spearman(along[rows], shown[rows]), len(known))


def _refits(one: Boundary, ridge: float) -> list[Vector]:
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(one.low), (REFITS, 2, len(one.low)))
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
    return numbers(distance, _distances(refits, vectors)) | {
        "index": index,
        "candidates": len(vectors),
        "chance": round(float(chance.mean()), 4),
        "chance_sd": round(float(chance.std()), 4),
        "shuffled": round(float(shuffled.mean()), 4),
        "p_shuffled": round(float(below), 4),
    }
