"""Which samples of the pool to annotate: strategies that see no mask before they pick a sample.

Some pick at once; queries pick in rounds, what the fits to the annotated samples are least sure of.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.analysis.fewshot import selection
from pipeline.analysis.fewshot.fits import Fitted, Rule, Task, fit_parts, solve
from pipeline.analysis.fewshot.pool import Part, Pool
from pipeline.data.inputs import Study
from pipeline.extractors import problems
from pipeline.extractors.networks import LSE
from pipeline.runtime.errors import InputError, choose

ROUNDS = (1, 4, 8, 16, 32)  # shots after which queries look again
MEMBERS = 3  # of a committee
DISPUTED = 0.1  # share of a sample's pixels, the most disputed, whose mean is its score

Scores = Float[np.ndarray, " sample"]


def entropies(
    pool: Pool, rows: Sequence[int], last: Fitted, rule: Rule, seed: selection.Seed
) -> Scores:
    """How unsure the last extractor is of each sample."""
    return np.array([entropy(last.extractor, pool.unlabeled[row]) for row in rows])


def entropy(extractor: LSE, columns: Float[Tensor, "pixel channel"]) -> float:
    """Mean entropy in nats of the extractor's softmax over classes at some pixels."""
    matrix = torch.cat([weight.T for weight in extractor.weights]).to(columns.device)
    log_p = problems.times(columns, matrix).log_softmax(1)
    return float(-(log_p.exp() * log_p).sum(1).mean())


def disagreements(
    pool: Pool, rows: Sequence[int], last: Fitted, rule: Rule, seed: selection.Seed
) -> Scores:
    """How far a committee of the annotated samples disagrees on each sample."""
    annotated = [pool.parts[row, 0] for row in last.task.rows]
    members = committee(annotated, rule, len(last.extractor.classes), seed)
    return np.array([disagreement(members, pool.unlabeled[row]) for row in rows])


def committee(
    parts: Sequence[Part], rule: Rule, num_classes: int, seed: selection.Seed
) -> Float[Tensor, "model channel class"]:
    """Fits that differ by what they have seen: each leaves another third of the samples out.

    Of a single sample, each leaves another third of its pixels out. DatasetGAN's members differ by
    their initial weights, which a convex problem forgets.
    """
    if len(parts) == 1:
        kept = selection.jackknife(len(parts[0].y), MEMBERS, seed)
        seen = [[parts[0].at(pixels)] for pixels in kept]
    else:
        kept = selection.jackknife(len(parts), MEMBERS, seed)
        seen = [[parts[i] for i in samples] for samples in kept]
    return torch.stack([fit_parts(each, rule, num_classes) for each in seen])


def disagreement(
    members: Float[Tensor, "model channel class"], columns: Float[Tensor, "pixel channel"]
) -> float:
    """Mean Jensen-Shannon divergence in nats at the pixels where it is largest (DatasetGAN)."""
    logits = [problems.times(columns, member.to(columns.device)) for member in members]
    probabilities = torch.stack(logits).double().softmax(2).cpu().numpy()
    return selection.top_mean(selection.jensen_shannon(probabilities), DISPUTED)


QUERIES = {"uncertain": entropies, "committee": disagreements}
SELECTIONS = ("random", "diverse", *QUERIES)


def select_and_solve(
    study: Study,
    pool: Pool,
    strategies: Sequence[str],
    shots: Sequence[int],  # ascending: QUERIES add samples in these rounds
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
                rows = _pick(pool, strategy, half, num, last, rule, (seed, repeat))
                last = solve(study, pool, Task(rows, repeat, strategy, "half"), rule)
                found.append(last)
    return found


def _pick(
    pool: Pool,
    strategy: str,
    half: np.ndarray,
    num: int,
    last: Fitted | None,  # of the same strategy, with fewer samples
    rule: Rule,
    seed: selection.Seed,
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
    scores = QUERIES[strategy](pool, half.tolist(), last, rule, seed)
    known = np.flatnonzero(np.isin(half, taken))
    added = selection.most_uncertain(scores, known, num - len(taken))
    return (*taken, *half[added].tolist())
