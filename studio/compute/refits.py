"""Few-shot LSEs of what was drawn: live ones after each stroke, settled ones as the pipeline fits.

A live one takes a few L-BFGS steps from the last one, on the taps that guide edits, and is never
saved. A settled one is `fewshot.fits.solve` on the files of annotations, from zero.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch

from pipeline.analysis.fewshot.fits import annotated_task, solve
from pipeline.analysis.fewshot.pool import UNANNOTATED, Part, Pool, annotate
from pipeline.analysis.fewshot.strategies import entropy
from pipeline.data.annotations import read_annotations
from pipeline.data.palette import UNLABELED
from pipeline.data.pixels import draw_pixels, hypercolumns
from pipeline.extractors.networks import LSE, load_extractor, save_extractor
from pipeline.extractors.problems import STORED, problem
from pipeline.extractors.solvers import lbfgs
from pipeline.runtime.weights import read_safetensors
from studio.compute.opened import Opened
from studio.drawings import revision
from studio.samples import Sample

WARM, COLD = 10, 20  # iterations of a live fit: from the last one, and of the first one
SUGGESTED = 8  # samples

Report = Callable[[object], None]


class Refits:
    """The current extractor, and the pixels that fits read, by row and revision."""

    def __init__(self, opened: Opened):
        self.opened, self.place = opened, opened.place
        self.current: LSE | None = opened.guide(self.place.full) if self.place.full else None
        self.fitted = False  # whether `current` is of annotations
        self.live_parts: dict[int, tuple[str, Part]] = {}
        self.parts: dict[int, tuple[str, Part]] = {}  # of all taps, for settled fits
        self.columns: dict[int, torch.Tensor] = {}  # [pixel, channel] of rows, to score them

    def live(self, masks: Mapping[int, np.ndarray]) -> None:
        """Go on from the last fit, with the masks of all annotated rows."""
        revisions = {row: revision(mask) for row, mask in masks.items()}
        for row, mask in masks.items():
            if self.live_parts.get(row, ("",))[0] != revisions[row]:
                self.live_parts[row] = revisions[row], self._live_part(row, mask)
        self.live_parts = {row: self.live_parts[row] for row in masks}
        parts = [part for _, part in self.live_parts.values()]
        data = problem(
            columns=torch.cat([part.x for part in parts]),
            y=torch.cat([part.y for part in parts]),
            weights=torch.cat([part.weights for part in parts]),
            num_classes=len(self.opened.pool.classes),
            bias=False,
            power=self.place.rule.power,
        )
        start = _matrix(self.current) if self.current and self.fitted else None
        iterations = COLD if start is None else WARM
        l2 = [self.place.rule.l2]
        found = lbfgs(data, l2, iterations, precondition=False, start=start)
        extractor = LSE(self.opened.pool.classes, self.opened.taps, False, self.place.align_corners)
        extractor.set_matrix(found.matrix[0])
        self.current, self.fitted = extractor.requires_grad_(False), True

    def _live_part(self, row: int, mask: np.ndarray) -> Part:
        """Hypercolumns of the pixels that a settled fit would draw, of fewer taps."""
        maps, rule = self.opened.maps(Sample("pool", row)), self.place.rule
        seed, classes = int(self.opened.pool.seeds[row]), len(self.opened.pool.classes)
        pixels = draw_pixels(mask, rule.pixels_per_sample, seed, classes)
        sample = [maps[tap.name][0] for tap in self.opened.taps]
        x = hypercolumns(sample, pixels.places, len(mask), self.place.align_corners).to(STORED)
        weights = torch.from_numpy(pixels.weights / pixels.weights.sum()).float()
        return Part(x, torch.from_numpy(pixels.classes).long().to(x.device), weights.to(x.device))

    def settle(self, report: Report) -> dict:
        """Fit what the files of annotations say, save it, and tell what it was fitted to."""
        annotations = read_annotations(self.place.annotations, self.opened.pool)
        revisions = {row: revision(mask) for row, mask in annotations.items()}
        study = replace(self.opened.study, annotations=annotations)
        for row, now in revisions.items():
            report(None)
            if self.parts.get(row, ("",))[0] != now:
                own = annotate(study, {row: [0]}, self.place.rule.pixels_per_sample)
                self.parts[row] = now, own.parts[row, 0]
        self.parts = {row: self.parts[row] for row in revisions}
        pool = Pool({(row, 0): part for row, (_, part) in self.parts.items()})
        fitted = solve(study, pool, annotated_task(study), self.place.rule)
        report(None)
        told = {str(row): now for row, now in revisions.items()}
        facts = {"name": "fewshot", "rows": fitted.task.rows, "revisions": told}
        save_extractor(self.place.fewshot, fitted.extractor, facts)
        self.reload()
        return {"revisions": revisions, "pixels": fitted.labeled_pixels}

    def reload(self) -> None:
        """Make the settled extractor the current one."""
        self.current, self.fitted = self.opened.guide(self.place.fewshot), True

    def settled(self) -> dict[int, str] | None:
        """{row: revision} that the saved extractor was fitted to; None if there is none."""
        if not self.place.fewshot.exists():
            return None
        revisions = read_safetensors(self.place.fewshot)[1].get("revisions", {})
        ours = load_extractor(self.place.fewshot)
        if ours.classes != self.opened.pool.classes or ours.taps != self.opened.generator.taps:
            return None
        return {int(row): now for row, now in revisions.items()}

    def forget(self) -> None:
        """Nothing is annotated any more: the extractor of many samples again."""
        self.current = self.opened.guide(self.place.full) if self.place.full else None
        self.fitted, self.live_parts, self.parts = False, {}, {}

    def describe(self, row: int) -> None:
        """Keep some pixels of a row, to tell later how sure an extractor is of it."""
        if row not in self.columns:
            size, seed = self.place.size, int(self.opened.pool.seeds[row])
            places = np.random.default_rng(seed).integers(0, size * size, UNANNOTATED)
            maps = self.opened.maps(Sample("pool", row))
            sample = [maps[tap.name][0] for tap in self.opened.taps]
            columns = hypercolumns(sample, places, size, self.place.align_corners)
            self.columns[row] = columns.to(STORED)

    def suggest(self, annotated: set[int]) -> list[int]:
        """The described rows that the current extractor is least sure of, without `annotated`."""
        if self.current is None:
            return []
        scores = {row: entropy(self.current, x) for row, x in self.columns.items()}
        open_rows = [row for row in scores if row not in annotated]
        return sorted(open_rows, key=lambda row: (-scores[row], row))[:SUGGESTED]

    def mask(self, sample: Sample) -> bytes:
        """What the current extractor sees, as raw ids; UNLABELED where there is no extractor."""
        size = self.place.size
        if self.current is None:
            return bytes([UNLABELED]) * size * size
        return self.current.predict(self.opened.maps(sample), size)[0].tobytes()


def _matrix(extractor: LSE) -> torch.Tensor:
    """The weights [channel, class] of all taps."""
    return torch.cat([weight.T for weight in extractor.weights])
