"""Linear extractors of some taps, on one set of sampled pixels (Xu & Zheng, appendix I).

Every set of taps is its own convex problem; so is eq (8), which also asks each tap alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pipeline.data.stores import Store
from pipeline.extractors import problems
from pipeline.extractors.fitting import RELIABLE, Choice, Columns, choose_fit, read_columns
from pipeline.extractors.networks import LSE
from pipeline.generators.taps import Tap


@dataclass(frozen=True)
class Pixels:
    """Pixels of all taps that many fits read, each channel divided by its root mean square."""

    classes: tuple[str, ...]
    taps: tuple[Tap, ...]
    align_corners: bool
    data: problems.Problem
    held: Columns  # on the scale of `data`
    moments: Tensor | None  # second moments [C, C] of `data`; None: do not precondition

    def of(self, chosen: Sequence[int], values: Tensor, axis: int = 0) -> Tensor:
        """The part of `values` that belongs to the channels of the taps of these indices."""
        parts = values.split([tap.channels for tap in self.taps], axis)
        return torch.cat([parts[i] for i in chosen], axis)

    def thinned(self, step: int) -> "Pixels":
        """Every step-th training pixel, and all validation pixels."""
        data = self.data
        x, y, weights = (values[::step] for values in (data.columns, data.y, data.weights))
        return replace(self, data=replace(data, x=x, y=y, weights=weights / weights.sum()))

    def extractor(self, matrix: Tensor, chosen: Sequence[int] | None = None) -> LSE:
        """An LSE over all taps from a matrix over some taps' scaled channels; the rest is 0."""
        chosen = range(len(self.taps)) if chosen is None else chosen
        widths = [self.taps[i].channels for i in chosen]
        given = dict(zip(chosen, matrix.split(widths), strict=True))
        parts = [
            given.get(i, matrix.new_zeros(t.channels, matrix.shape[1]))
            for i, t in enumerate(self.taps)
        ]
        full = torch.cat(parts) / self.data.scale[:, None]
        found = LSE(self.classes, self.taps, align_corners=self.align_corners)
        found.set_matrix(full.cpu())
        return found.requires_grad_(False)


def prepare(train: Columns, held: Columns, store: Store) -> Pixels:
    """Scale both sets of pixels, in place; the training pixels' root mean squares serve both."""
    facts = store.plan.facts
    data = problems.problem(train.x, train.y, train.weights, facts["num_classes"], bias=False)
    for x in held.x.split(problems.ROWS):
        x.copy_(x.float() / data.scale)
    taps = tuple(Tap(**tap) for tap in facts["taps"])
    precondition = store.plan.splits["train"] >= RELIABLE
    moments = problems.moments(data, seed=0) if precondition else None
    return Pixels(tuple(facts["classes"]), taps, facts["align_corners"], data, held, moments)


def read(store: Store, pixel_budget: int, device: str) -> tuple[Columns, Columns]:
    """Training pixels of all taps, and a quarter as many validation pixels."""
    channels = np.arange(store.plan.facts["channels"])
    return (
        read_columns(store, "train", channels, pixel_budget, device),
        read_columns(store, "validation", channels, pixel_budget // 4, device),
    )


def fit_taps(pixels: Pixels, chosen: Sequence[int], l2: Sequence[float], iterations: int) -> Choice:
    """Solve eq (1) over the taps of these indices alone."""
    data, held, moments = pixels.data, pixels.held, pixels.moments
    if len(chosen) < len(pixels.taps):
        data = replace(data, x=pixels.of(chosen, data.columns, 1))
        data = replace(data, scale=pixels.of(chosen, data.scale))
        held = replace(held, x=pixels.of(chosen, held.x, 1))
        if moments is not None:
            moments = pixels.of(chosen, pixels.of(chosen, moments), 1)
    return _best(data, held, moments, l2, iterations)


def fit_layered(
    pixels: Pixels, layer_weight: float, l2: Sequence[float], iterations: int
) -> Choice:
    """Solve eq (8): the loss of eq (1) plus `layer_weight` times that of each tap alone.

    Validation judges the sum over taps.
    """
    channels = tuple(tap.channels for tap in pixels.taps)
    data = problems.layered(pixels.data, channels, layer_weight)
    moments = pixels.moments
    if moments is not None:
        alone = [pixels.of([i], pixels.of([i], moments), 1) for i in range(len(pixels.taps))]
        moments = moments + layer_weight * torch.block_diag(*alone)
    return _best(data, pixels.held, moments, l2, iterations)


def _best(
    data: problems.Problem,
    held: Columns,
    moments: Tensor | None,
    l2: Sequence[float],
    iterations: int,
) -> Choice:
    """As every LSE; the held pixels are scaled as the data, and so is the matrix."""
    data = replace(data, scale=torch.ones_like(data.scale))
    return choose_fit(data, held, l2, iterations, moments is not None, moments)
