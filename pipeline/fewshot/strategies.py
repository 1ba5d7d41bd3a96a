"""Which samples of the pool to annotate: strategies that see no mask before they pick a sample."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline import selection, solvers
from pipeline.errors import InputError, choose
from pipeline.extractors import LSE
from pipeline.fewshot.fits import Fitted, Rule, Task, solve
from pipeline.fewshot.pool import Pool
from pipeline.fewshot.study import Study

SELECTIONS = ("random", "diverse", "uncertain")
ROUNDS = (1, 4, 8, 16, 32)  # shots after which `uncertain` looks again


def select_and_solve(
    study: Study,
    pool: Pool,
    strategies: Sequence[str],
    shots: Sequence[int],  # ascending: uncertain samples are added in these rounds
    repeats: int,
    seed: int,
    rule: Rule,
) -> list[Fitted]:
    """Every strategy on the same random half of the pool a repeat; masks only of what it picked."""
    total, found = study.pool, []
    for strategy in strategies:
        choose("selection", strategy, SELECTIONS)
    for repeat, half in enumerate(selection.candidates(total, repeats, seed)):
        for strategy in strategies:
            last: Fitted | None = None
            for num in sorted(shots):
                rows = _pick(pool, strategy, half, num, last)
                last = solve(study, pool, Task(rows, repeat, strategy, "half"), rule)
                found.append(last)
    return found


def _pick(
    pool: Pool, strategy: str, half: np.ndarray, num: int, last: Fitted | None
) -> tuple[int, ...]:
    if num > len(half):
        raise InputError(
            f"{num} shots from a random half of the pool, {len(half)} samples",
            f"at most {len(half)}",
            "lower shots, raise the study's sample.pool, or drop selections",
        )
    if strategy == "diverse":
        described = np.stack([pool.descriptions[int(row)] for row in half])
        scaled = described / np.sqrt((described**2).mean(0)).clip(1e-12)
        return tuple(half[selection.k_center(scaled, num)].tolist())
    if strategy == "random" or last is None:
        return tuple(half[:num].tolist())
    taken = last.task.rows
    scores = np.array([entropy(last.extractor, pool.unlabeled[int(row)]) for row in half])
    known = np.flatnonzero(np.isin(half, taken))
    added = selection.most_uncertain(scores, known, num - len(taken))
    return (*taken, *half[added].tolist())


def entropy(extractor: LSE, columns: Float[Tensor, "pixel channel"]) -> float:
    """Mean entropy in nats of the extractor's softmax over classes at some pixels."""
    matrix = torch.cat([weight.T for weight in extractor.weights]).to(columns.device)
    log_p = solvers.times(columns, matrix).log_softmax(1)
    return float(-(log_p.exp() * log_p).sum(1).mean())
