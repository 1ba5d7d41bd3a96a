"""The annotated pool, streamed once: hypercolumns of the pixels that an annotator drew."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pipeline.analysis.fewshot import selection
from pipeline.data.arrays import Group
from pipeline.data.features import stream
from pipeline.data.inputs import Study
from pipeline.data.pixels import draw_pixels, hypercolumns
from pipeline.extractors import problems

UNANNOTATED = 128  # uniform pixels a sample, to tell how sure extractors are of it
DESCRIBED = 64  # channels of each tap whose means describe a sample to `diverse`


@dataclass(frozen=True)
class Part:
    """Hypercolumns of one annotation of one sample, with classes and weights (sum 1)."""

    x: Tensor  # [P, C]
    y: Tensor  # [P]
    weights: Tensor  # [P]

    def at(self, pixels: np.ndarray) -> "Part":
        """Some of its pixels."""
        kept = torch.from_numpy(pixels).to(self.y.device)
        return Part(self.x[kept], self.y[kept], self.weights[kept])


@dataclass
class Pool:
    """The annotated pool: {(row, strokes): Part}, and what is known of a row without a mask."""

    parts: dict[tuple[int, int], Part] = field(default_factory=dict)
    unlabeled: dict[int, Tensor] = field(default_factory=dict)  # [UNANNOTATED, C]
    descriptions: dict[int, np.ndarray] = field(default_factory=dict)  # [features]


def annotate(
    study: Study,
    wanted: Mapping[int, Sequence[int]],  # row of the pool: its annotations, in strokes (0: full)
    pixels_per_sample: int,
    unlabeled: bool = False,  # also describe the rows without their masks
) -> Pool:
    """Synthesize the rows of the pool once and look up the hypercolumns of their annotations."""
    masks, seeds = (
        Group(path).read("pool", name)
        for path, name in ((study.masks, "masks"), (study.source.latents, "seeds"))
    )
    taps, pool, size = study.taps, Pool(), masks.shape[-1]
    for row in sorted(wanted):
        seed = int(seeds[row])
        features, _ = next(stream(study.source, "pool", row, row + 1, taps))
        sample = [features[tap.name][0] for tap in taps]
        drawn = {
            strokes: _drawn(
                study.annotations.get(row, masks[row]),
                *(strokes, pixels_per_sample, seed, len(study.classes)),
            )
            for strokes in wanted[row]
        }
        places = [places for places, _ in drawn.values()]
        if unlabeled:
            places.append(np.random.default_rng(seed).integers(0, size * size, UNANNOTATED))
            pool.descriptions[row] = describe(sample)
        columns = hypercolumns(sample, np.concatenate(places), size, study.align_corners)
        split = columns.to(problems.STORED).split([len(p) for p in places])
        for x, (strokes, (where, weights)) in zip(split, drawn.items(), strict=False):
            mask = study.annotations.get(row, masks[row])
            y = torch.from_numpy(mask.ravel()[where]).long().to(x.device)
            shares = torch.from_numpy(weights / weights.sum()).float().to(x.device)
            pool.parts[row, strokes] = Part(x, y, shares)
        if unlabeled:
            pool.unlabeled[row] = split[-1]
    return pool


def _drawn(
    mask: np.ndarray, strokes: int, count: int, seed: int, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Places and weights of one annotation of a mask.

    A full mask gives importance-weighted draws; a stroke's pixels count the same, since whoever
    drew strokes does not know the areas.
    """
    if strokes:
        places = selection.strokes(mask, strokes, seed)
        return places, np.ones(len(places), np.float32)
    pixels = draw_pixels(mask, count, seed, num_classes)
    return pixels.places, pixels.weights


def describe(sample: Sequence[Tensor]) -> np.ndarray:
    """A sample [features] by the mean over pixels of its taps, a few channels of each."""
    return np.concatenate([x.float().mean((1, 2))[:DESCRIBED].cpu().numpy() for x in sample])
