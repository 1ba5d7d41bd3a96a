"""Cases edited by methods; each outcome is a piece in the store, read by later runs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from pipeline.editing.optimize import ByExtractor, ByTeacher
from pipeline.editing.semantic.cases import IMAGE_METHODS, Case, Setup, render, segment
from pipeline.editing.semantic.method import Edited, Objective, by_color, by_mask, edit_latents
from pipeline.runtime import pieces
from pipeline.runtime.errors import InputError, choose

PIECES = pieces.Kind("edits", __name__)


@dataclass(frozen=True)
class Outcome:
    """What a method made of a case."""

    before: Float32[np.ndarray, "num_ws w_dim"]
    after: Float32[np.ndarray, "num_ws w_dim"]
    image: UInt8[np.ndarray, "3 size size"]
    teacher_mask: UInt8[np.ndarray, "size size"]
    judge_mask: UInt8[np.ndarray, "size size"]
    losses: Float32[np.ndarray, " step"]
    seconds: float  # of the search, on the clock
    cpu_seconds: float


@dataclass(frozen=True, eq=False)
class EditTask:
    """A few cases for a method, which are edited as one batch."""

    setup: Setup
    cases: tuple[Case, ...]
    method: str

    @property
    def facts(self) -> dict:
        """All that the outcomes depend on."""
        return self.setup.facts(self.method) | {"cases": [case.digest for case in self.cases]}

    def work(self) -> dict[str, np.ndarray]:
        """The outcomes' fields, [case, ...]."""
        outcomes = [vars(one) for one in edit_together(self.setup, self.cases, self.method)]
        return {name: np.stack([one[name] for one in outcomes]) for name in outcomes[0]}


def edit_together(setup: Setup, cases: Sequence[Case], method: str) -> list[Outcome]:
    """Edit samples by one method, as one batch, and look at what came of it."""
    z = torch.from_numpy(np.stack([case.z for case in cases])).to(setup.device)
    found = edit_latents(setup.generator(), z, _objective(setup, cases, method), setup.rule)
    images = render(setup, torch.stack([one.after for one in found]))
    networks = setup.teacher, setup.judge or setup.teacher
    seen = zip(images, *(segment(setup, path, images) for path in networks), strict=True)
    return [_outcome(one, *looks) for one, looks in zip(found, seen, strict=True)]


def _outcome(found: Edited, image: np.ndarray, mask: np.ndarray, judged: np.ndarray) -> Outcome:
    return Outcome(
        found.before.float().cpu().numpy(),
        found.after.float().cpu().numpy(),
        image,
        mask,
        judged,
        found.losses.cpu().numpy(),
        found.seconds,
        found.cpu_seconds,
    )


def _objective(setup: Setup, cases: Sequence[Case], method: str) -> Objective:
    choose("method", method, setup.methods)
    masks = np.stack([case.target.mask for case in cases])
    if method == "color":
        strokes, images = (np.stack([getattr(c, n) for c in cases]) for n in ("stroke", "image"))
        return by_color(strokes, images, np.stack([case.target.region for case in cases]))
    if method == "teacher":
        return by_mask(ByTeacher(setup.segmenter(setup.teacher)), masks)
    path = setup.extractors[method]
    extractor = setup.extractor(method)
    if extractor.classes != (classes := setup.segmenter(setup.teacher).classes):
        raise InputError(
            f"{path} with classes {', '.join(extractor.classes)}",
            f"the teacher's: {', '.join(classes)}",
            "name an extractor that was fitted to this teacher's masks",
        )
    return by_mask(ByExtractor(extractor), masks)


def edit_cases(
    setup: Setup, cases: Sequence[Case], num_workers: int = 0
) -> dict[tuple[int, str], Outcome]:
    """Every case by every method that takes it: {(index of the case, method): outcome}.

    What an earlier run or another experiment has finished is read.
    """
    batches = [
        (method, taken[start : start + setup.together])
        for method in setup.methods
        for taken in [takes(setup, cases, method)]
        for start in range(0, len(taken), setup.together)
    ]
    # Gradients through images are too rough in bfloat16.
    exact = replace(setup, compute="float32")
    tasks = [
        EditTask(exact if method in IMAGE_METHODS else setup, tuple(cases[i] for i in some), method)
        for method, some in batches
    ]
    found = pieces.run(PIECES, tasks, setup.device, num_workers, "editing")
    return {
        (i, method): _of(arrays, place)
        for (method, some), arrays in zip(batches, found, strict=True)
        for place, i in enumerate(some)
    }


def _of(arrays: dict[str, np.ndarray], place: int) -> Outcome:
    values = {name: value[place] for name, value in arrays.items()}
    return Outcome(**{name: v if v.ndim else v.item() for name, v in values.items()})


def takes(setup: Setup, cases: Sequence[Case], method: str) -> list[int]:
    """Indices of the cases that a method edits: of IMAGE_METHODS, the first ones of each edit."""
    most = setup.image_samples if method in IMAGE_METHODS else None
    seen: Counter[str] = Counter()
    chosen = []
    for i, case in enumerate(cases):
        seen[case.edit] += 1
        if most is None or seen[case.edit] <= most:
            chosen.append(i)
    return chosen
