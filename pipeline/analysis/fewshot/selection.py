"""Which samples of a pool to annotate, and which of their pixels: no torch, no training."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.special import entr  # -p log p, 0 at 0

from pipeline.runtime.errors import InputError

Seed = int | Sequence[int]

STROKES_PER_CLASS = 3  # at least, where a class's share of the pixels allows it
TRIES = 64  # segments begun in a class before the rest is filled with single pixels


def check_shots(shots: int, repeats: int, pool: int) -> None:
    """InputError unless `repeats` disjoint draws of `shots` samples fit into the pool."""
    if shots < 1:
        raise InputError(f"shots {shots}", "at least 1", "change shots")
    if repeats < 1:
        raise InputError(f"repeats {repeats}", "at least 1", "change repeats")
    if shots * repeats > pool:
        raise InputError(
            f"{repeats} disjoint draws of {shots} samples from a pool of {pool}",
            f"at most {pool // repeats} shots a repeat",
            "lower shots or repeats, or raise the study's sample.pool",
        )


def disjoint_draws(
    pool: int, shots: int, repeats: int, seed: int
) -> Int[np.ndarray, "repeat sample"]:
    """Rows of the pool for each repeat, no row in two of them.

    A shuffled pool is cut into `repeats` blocks and each repeat takes the first `shots` rows of
    its block, so that more shots contain fewer ones and a curve over shots is paired.
    """
    check_shots(shots, repeats, pool)
    order = np.random.default_rng(seed).permutation(pool)
    return order[: pool // repeats * repeats].reshape(repeats, -1)[:, :shots]


def candidates(pool: int, repeats: int, seed: int) -> Int[np.ndarray, "repeat candidate"]:
    """A random half of the pool for each repeat, in random order: what a strategy may pick from."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(pool)[: pool // 2] for _ in range(repeats)])


def k_center(features: Float[np.ndarray, "sample feature"], count: int) -> Int[np.ndarray, " pick"]:
    """`count` rows that cover the others: greedy k-center (Gonzalez 1985; Sener & Savarese 2018).

    The first is the row nearest to the mean; each next one is the farthest from those picked.
    """
    nearest = ((features - features.mean(0)) ** 2).sum(1)
    picks = [int(nearest.argmin())]
    distance = np.full(len(features), np.inf)
    while len(picks) < count:
        distance = np.minimum(distance, ((features - features[picks[-1]]) ** 2).sum(1))
        picks.append(int(distance.argmax()))
    return np.array(picks)


def most_uncertain(
    scores: Float[np.ndarray, " sample"], taken: Int[np.ndarray, " known"], count: int
) -> Int[np.ndarray, " pick"]:
    """The `count` rows of highest score that are not in `taken`, highest first."""
    order = np.argsort(-scores, kind="stable")
    return order[~np.isin(order, taken)][:count]


def jackknife(count: int, members: int, seed: Seed) -> list[Int[np.ndarray, " kept"]]:
    """What each member keeps of `count` things: all but its own share of a random partition.

    Each thing is left out by one member; with fewer things than members, some leave none out.
    """
    left_out = np.array_split(np.random.default_rng(seed).permutation(count), members)
    return [np.setdiff1d(np.arange(count), share) for share in left_out]


def jensen_shannon(
    probabilities: Float[np.ndarray, "model pixel class"],
) -> Float[np.ndarray, " pixel"]:
    """Jensen-Shannon divergence in nats of the models' distributions over classes.

    Entropy of their mean minus the mean of their entropies: 0 if they agree, at most the log of
    their number, if each is sure of another class (Zhang et al., DatasetGAN, CVPR 2021).
    """
    values = probabilities.astype(np.float64)
    between = entr(values.mean(0)).sum(-1) - entr(values).sum(-1).mean(0)
    return between.clip(0)  # of equal models: rounding


def top_mean(values: Float[np.ndarray, " value"], share: float) -> float:
    """Mean of the largest values: a share of them, at least one."""
    count = max(1, round(share * len(values)))
    return float(np.sort(values)[-count:].mean())


def shares(area: Int[np.ndarray, " class"], count: int) -> Int[np.ndarray, " class"]:
    """`count` pixels divided over the classes in proportion to sqrt(area).

    A class that is present gets at least one pixel (while `count` lasts, the largest first) and
    none gets more than its area.
    """
    count = int(min(count, area.sum()))
    found = np.zeros(len(area), np.int64)
    found[np.argsort(-area, kind="stable")[:count]] = 1
    found[area == 0] = 0
    if count == 0:
        return found
    wanted = np.sqrt(area) / np.sqrt(area).sum() * count
    while found.sum() < count:
        deficit = np.where(found < area, wanted - found, -np.inf)
        found[deficit.argmax()] += 1
    return found


def strokes(mask: np.ndarray, count: int, seed: int) -> Int[np.ndarray, " pixel"]:
    """Places y * size + x of `count` different pixels of mask [S, S], in thin straight strokes.

    What someone might draw: in every class a few segments one pixel wide that stay inside the
    class, with pixels in proportion to sqrt(area), so that small parts are not forgotten.
    """
    rng, size = np.random.default_rng(seed), mask.shape[1]
    area = np.bincount(mask.ravel())
    places = [
        _class_strokes(np.flatnonzero(mask == label), size, int(share), rng)
        for label, share in enumerate(shares(area, count))
        if share
    ]
    return np.concatenate(places).astype(np.int32)


def _class_strokes(
    region: np.ndarray, size: int, count: int, rng: np.random.Generator
) -> np.ndarray:
    """`count` different places of one class's region: segments, then single pixels."""
    inside = np.zeros(size * size, bool)
    drawn: dict[int, None] = {}
    inside[region] = True
    longest = -(-count // STROKES_PER_CLASS)
    for start in rng.choice(region, TRIES):
        angle = rng.uniform(0, 2 * np.pi)
        for place in _segment(int(start), angle, size, inside, longest):
            if len(drawn) < count:
                drawn[place] = None
    rest = np.setdiff1d(region, list(drawn))
    lacking = count - len(drawn)
    return np.concatenate([np.array(list(drawn), int), rng.permutation(rest)[:lacking]])


def _segment(start: int, angle: float, size: int, inside: np.ndarray, longest: int) -> list[int]:
    """Places of a straight run from `start` until it leaves the region or is `longest` long."""
    steps = np.arange(longest)
    y = np.rint(start // size + steps * np.sin(angle)).astype(int)
    x = np.rint(start % size + steps * np.cos(angle)).astype(int)
    valid = (y >= 0) & (y < size) & (x >= 0) & (x < size)
    valid[valid] = inside[y[valid] * size + x[valid]]
    end = len(steps) if valid.all() else int(valid.argmin())
    return list(dict.fromkeys((y[:end] * size + x[:end]).tolist()))
