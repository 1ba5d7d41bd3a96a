"""Linear extractors of some taps, on one set of sampled pixels (Xu & Zheng, appendix I).

Every set of taps is its own convex problem; so is eq (8), which also asks each tap alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pipeline import solvers
from pipeline.devices import fast_bfloat16
from pipeline.extractors import LSE
from pipeline.fitting import Columns, read_columns, validation_miou
from pipeline.stores import Store
from pipeline.taps import Tap

SETTLED = 5  # iterations before validation may choose one, as for every LSE
RELIABLE = 100  # training samples from which on second moments precondition, as for every LSE


@dataclass(frozen=True)
class Pixels:
    """Pixels of all taps that many fits read, each channel divided by its root mean square."""

    classes: tuple[str, ...]
    taps: tuple[Tap, ...]
    align_corners: bool
    data: solvers.Problem
    held: Columns  # on the scale of `data`
    moments: Tensor | None  # second moments [C, C] of `data`; None: do not precondition

    def channels(self, chosen: Sequence[int]) -> Tensor:
        """Channels of the taps of these indices, in order."""
        ends = np.cumsum([tap.channels for tap in self.taps])
        parts = [torch.arange(ends[i] - self.taps[i].channels, ends[i]) for i in chosen]
        return torch.cat(parts).to(self.data.scale.device)

    def thinned(self, step: int) -> "Pixels":
        """Every step-th training pixel, and all validation pixels."""
        data = self.data
        x, y, weights = (values[::step] for values in (data.x, data.y, data.weights))
        weights = weights / weights.sum()
        few = solvers.Problem(x, y, weights, data.scale, data.num_classes, bias=False)
        return replace(self, data=few)

    def extractor(self, matrix: Tensor, chosen: Sequence[int] | None = None) -> LSE:
        """An LSE over all taps from a matrix over some taps' scaled channels; the rest is 0."""
        kept = self.channels(range(len(self.taps)) if chosen is None else chosen)
        full = torch.zeros(len(self.data.scale), len(self.classes), device=matrix.device)
        full[kept] = matrix / self.data.scale[kept, None]
        found = LSE(self.classes, self.taps, align_corners=self.align_corners)
        found.set_matrix(full.cpu())
        return found.requires_grad_(False)


def prepare(
    train: Columns, held: Columns, store: Store, precondition: bool | None = None
) -> Pixels:
    """Scale both sets of pixels, in place; precondition from RELIABLE samples on if None."""
    facts = store.plan.facts
    data = solvers.problem(train.x, train.y, train.weights, facts["num_classes"], bias=False)
    for x in held.x.split(solvers.ROWS):
        x.copy_(x.float() / data.scale)
    if precondition is None:
        precondition = store.plan.splits["train"] >= RELIABLE
    taps = tuple(Tap(**tap) for tap in facts["taps"])
    moments = solvers.moments(data, seed=0) if precondition else None
    return Pixels(tuple(facts["classes"]), taps, facts["align_corners"], data, held, moments)


def read(store: Store, pixel_budget: int, device: str) -> tuple[Columns, Columns]:
    """Training pixels of all taps, and a quarter as many validation pixels."""
    channels = np.arange(store.plan.facts["channels"])
    dtype = torch.bfloat16 if fast_bfloat16(device) else torch.float32
    return (
        read_columns(store, "train", channels, pixel_budget, dtype, device),
        read_columns(store, "validation", channels, pixel_budget // 4, dtype, device),
    )


@dataclass(frozen=True)
class Fit:
    """A matrix [C, K] over the scaled channels of some taps, and what validation chose."""

    matrix: Tensor
    l2: float
    iteration: int
    miou: float  # on the validation pixels


def fit_taps(pixels: Pixels, chosen: Sequence[int], l2: Sequence[float], iterations: int) -> Fit:
    """Solve eq (1) over the taps of these indices alone."""
    kept, whole = pixels.channels(chosen), len(chosen) == len(pixels.taps)
    data, held, moments = pixels.data, pixels.held, pixels.moments
    if not whole:
        x = data.x[:, kept]
        data = solvers.Problem(x, data.y, data.weights, data.scale[kept], data.num_classes, False)
        held = Columns(held.x[:, kept], held.y, held.weights)
        moments = None if moments is None else moments[kept][:, kept]
    return _best(data, held, moments, l2, iterations)


def fit_layered(pixels: Pixels, layer_weight: float, l2: Sequence[float], iterations: int) -> Fit:
    """Solve eq (8): the loss of eq (1) plus `layer_weight` times that of each tap alone.

    Validation judges the sum over taps.
    """
    channels = tuple(tap.channels for tap in pixels.taps)
    data = solvers.layered(pixels.data, channels, layer_weight)
    moments = pixels.moments
    if moments is not None:
        alone = torch.block_diag(*[block for block in _diagonal_blocks(moments, channels)])
        moments = moments + layer_weight * alone
    return _best(data, pixels.held, moments, l2, iterations)


def _diagonal_blocks(moments: Tensor, channels: Sequence[int]) -> list[Tensor]:
    rows = moments.split(list(channels))
    return [row.split(list(channels), 1)[i] for i, row in enumerate(rows)]


def _best(
    data: solvers.Problem,
    held: Columns,
    moments: Tensor | None,
    l2: Sequence[float],
    iterations: int,
) -> Fit:
    """The L2 and the iteration that score best on the validation pixels."""
    best: list[Fit] = []
    # The held pixels are scaled as the data, so they need the matrix before its scale is undone.
    unscaled = solvers.Problem(
        data.x, data.y, data.weights, torch.ones_like(data.scale), data.num_classes, False
    )

    def consider(iteration: int, solution: solvers.Solution) -> None:
        if iteration < min(SETTLED, iterations):
            return
        scores = validation_miou(held, solution, data.num_classes)
        i = int(np.argmax(scores))
        if not best or scores[i] > best[0].miou:
            best[:] = [Fit(solution.matrix[i].clone(), l2[i], iteration, scores[i])]

    solvers.lbfgs(
        unscaled,
        list(l2),
        iterations,
        precondition=moments is not None,
        on_iteration=consider,
        second_moments=moments,
    )
    return best[0]
