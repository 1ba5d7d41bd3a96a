"""Cases edited by methods: each outcome is a file, so that a killed study goes on where it was."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from pipeline import workers
from pipeline.editing.cases import Case, Setup, render, segment
from pipeline.editing.optimize import ByExtractor, ByTeacher
from pipeline.editing.semantic import Objective, by_color, by_mask, edit_latent
from pipeline.errors import InputError, choose
from pipeline.files import atomic, fingerprint


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


@dataclass(frozen=True)
class EditTask:
    """A case for a method, and where the outcome is kept."""

    setup: Setup
    case: Case
    method: str
    path: Path


def edit_case(setup: Setup, case: Case, method: str) -> Outcome:
    """Edit a sample by one method and look at what came of it."""
    z, rule = torch.from_numpy(case.z).to(setup.device), setup.rule
    found = edit_latent(setup.generator(), z, _objective(setup, case, method), rule)
    image = render(setup, found.after)
    masks = [segment(setup, path, image) for path in (setup.teacher, setup.judge or setup.teacher)]
    vectors = (x.float().cpu().numpy() for x in (found.before, found.after))
    cost = found.seconds, found.cpu_seconds
    return Outcome(*vectors, image, *masks, found.losses.cpu().numpy(), *cost)


def _objective(setup: Setup, case: Case, method: str) -> Objective:
    choose("method", method, setup.methods)
    if method == "color":
        return by_color(case.stroke, case.image, case.target.region)
    if method == "teacher":
        return by_mask(ByTeacher(setup.segmenter(setup.teacher)), case.target.mask)
    path = setup.extractors[method]
    extractor = setup.extractor(method)
    if extractor.classes != (classes := setup.segmenter(setup.teacher).classes):
        raise InputError(
            f"{path} with classes {', '.join(extractor.classes)}",
            f"the teacher's: {', '.join(classes)}",
            "name an extractor that was fitted to this teacher's masks",
        )
    return by_mask(ByExtractor(extractor), case.target.mask)


def _edit(task: EditTask) -> Path:
    if not task.path.exists():
        outcome = edit_case(task.setup, task.case, task.method)
        with atomic(task.path) as partial, open(partial, "wb") as file:
            np.savez(file, **vars(outcome))
    return task.path


def read_outcome(path: Path) -> Outcome:
    """An outcome that an earlier run, or a worker, kept."""
    with np.load(path) as file:
        return Outcome(**{n: file[n] if file[n].ndim else file[n].item() for n in file})


def edit_cases(
    setup: Setup, cases: Sequence[Case], parts: Path, num_workers: int = 0
) -> dict[tuple[int, str], Outcome]:
    """Every case by every method: {(index of the case, method): outcome}.

    Each outcome is a file in `parts`, named by all that it depends on; an existing one is kept, so
    a study that was killed goes on where it was.
    """
    facts = {method: setup.facts(method) for method in setup.methods}
    keys = [(i, method) for method in setup.methods for i in range(len(cases))]
    tasks = [
        EditTask(setup, cases[i], m, parts / f"{fingerprint([facts[m], cases[i].digest])}.npz")
        for i, m in keys
    ]
    waiting = [task for task in tasks if not task.path.exists()]
    processes = workers.count(num_workers, setup.device, len(waiting) or 1)
    for _ in workers.run(_edit, waiting, "editing", processes):
        pass
    return {key: read_outcome(task.path) for key, task in zip(keys, tasks, strict=True)}
