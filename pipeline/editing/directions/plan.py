"""What a study of directions looks for, and all of it that needs no sample's image."""

from dataclasses import dataclass

from pipeline.editing.directions.method import (
    Factors,
    LayerRange,
    Spread,
    Vectors,
    factorize,
    layer_range,
    principal,
    random_directions,
    spread_of_w,
)
from pipeline.editing.directions.options import Plan
from pipeline.editing.directions.probes import Setup
from pipeline.runtime.errors import InputError
from pipeline.runtime.progress import say

BLOCKS = {"boundaries": 5_000_000, "spread": 6_000_000}  # of seeds, after those of the splits


@dataclass(frozen=True)
class Known:
    """What needs no sample's image: the factors of each range and the spread of w."""

    ranges: dict[str, LayerRange]
    factors: dict[str, Factors]  # of each range
    spread: Spread
    pca: Factors
    random: Vectors


def factor(setup: Setup, plan: Plan, truncation_psi: float) -> Known:
    """Everything in closed form."""
    generator = setup.source.generator()
    ranges = {name: layer_range(generator, name) for name in plan.ranges}
    if plan.top > generator.w_dim:
        raise InputError(
            f"top {plan.top}", f"at most {generator.w_dim}, the dimensions of w", "lower top"
        )
    if plan.random < plan.compared + 2:
        raise InputError(
            f"random {plan.random}",
            f"at least {plan.compared + 2}, two more than are compared",
            "raise random, the control of every score",
        )
    say(f"mapping {plan.spread_samples} z for the covariance of w")
    first_seed = plan.seed * 10_000_000 + BLOCKS["spread"]
    spread = spread_of_w(generator, plan.spread_samples, truncation_psi, first_seed)
    weights = generator.style_weights
    factors = {name: factorize([weights[x] for x in one.layers]) for name, one in ranges.items()}
    drawn = random_directions(plan.random, generator.w_dim, plan.seed)
    return Known(ranges, factors, spread, principal(spread), drawn)


def candidates(known: Known, plan: Plan) -> dict[str, Vectors]:
    """Directions that a boundary may be near to: all of a basis (the paper's table 1), the top."""
    sefa, pca = next(iter(known.factors.values())).vectors, known.pca.vectors
    few = dict.fromkeys(k for k in (10, plan.top) if k < len(sefa))
    found = {"sefa": sefa} | {f"sefa, first {k}": sefa[:k] for k in few}
    return found | {"pca": pca} | {f"pca, first {k}": pca[:k] for k in few}
