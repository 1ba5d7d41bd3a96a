"""Cases edited by methods: each outcome is a file, so that a killed study goes on where it was."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from pipeline.editing.optimize import ByExtractor, ByTeacher
from pipeline.editing.semantic.cases import Case, Setup, render, segment
from pipeline.editing.semantic.method import Edited, Objective, by_color, by_mask, edit_latents
from pipeline.runtime import workers
from pipeline.runtime.errors import InputError, choose
from pipeline.runtime.files import atomic, fingerprint


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
    """Cases for a method, and where their outcomes are kept."""

    setup: Setup
    cases: tuple[Case, ...]
    method: str
    paths: tuple[Path, ...]


def edit_together(setup: Setup, cases: Sequence[Case], method: str) -> list[Outcome]:
    """Edit samples by one method, as one batch, and look at what came of it."""
    z = torch.from_numpy(np.stack([case.z for case in cases])).to(setup.device)
    found = edit_latents(setup.generator(), z, _objective(setup, cases, method), setup.rule)
    images = render(setup, torch.stack([one.after for one in found]))
    networks = setup.teacher, setup.judge or setup.teacher
    seen = zip(images, *(segment(setup, path, images) for path in networks), strict=True)
    return [_outcome(one, *looks) for one, looks in zip(found, seen, strict=True)]


def _outcome(found: Edited, image: np.ndarray, *masks: np.ndarray) -> Outcome:
    vectors = (x.float().cpu().numpy() for x in (found.before, found.after))
    losses = found.losses.cpu().numpy()
    return Outcome(*vectors, image, *masks, losses, found.seconds, found.cpu_seconds)


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


def _edit(task: EditTask) -> None:
    outcomes = edit_together(task.setup, task.cases, task.method)
    for path, outcome in zip(task.paths, outcomes, strict=True):
        with atomic(path) as partial, open(partial, "wb") as file:
            np.savez(file, **vars(outcome))


def read_outcome(path: Path) -> Outcome:
    """An outcome that an earlier run, or a worker, kept."""
    with np.load(path) as file:
        return Outcome(**{n: file[n] if file[n].ndim else file[n].item() for n in file})


def edit_cases(
    setup: Setup, cases: Sequence[Case], parts: Path, num_workers: int = 0
) -> dict[tuple[int, str], Outcome]:
    """Every case by every method that takes it: {(index of the case, method): outcome}.

    Each outcome is a file in `parts`, named by all that it depends on; an existing one is kept, so
    a study that was killed goes on where it was.
    """
    paths: dict[tuple[int, str], Path] = {}
    for method in setup.methods:
        facts = setup.facts(method)
        for i in takes(setup, cases, method):
            paths[i, method] = parts / f"{fingerprint([facts, cases[i].digest])}.npz"
    tasks = list(_tasks(setup, cases, paths))
    processes = workers.count(num_workers, setup.device, len(tasks) or 1)
    for _ in workers.run(_edit, tasks, "editing", processes):
        pass
    return {key: read_outcome(path) for key, path in paths.items()}


def takes(setup: Setup, cases: Sequence[Case], method: str) -> list[int]:
    """Indices of the cases that a method edits: of the teacher, the first ones of each edit."""
    most = setup.teacher_samples if method == "teacher" else None
    seen: Counter[str] = Counter()
    chosen = []
    for i, case in enumerate(cases):
        seen[case.edit] += 1
        if most is None or seen[case.edit] <= most:
            chosen.append(i)
    return chosen


def _tasks(
    setup: Setup, cases: Sequence[Case], paths: Mapping[tuple[int, str], Path]
) -> Iterator[EditTask]:
    """What has no outcome yet, a few cases at a time."""
    most = setup.together
    for method in setup.methods:
        missing = [i for (i, m), path in paths.items() if m == method and not path.exists()]
        for start in range(0, len(missing), most):
            some = missing[start : start + most]
            ours = tuple(paths[i, method] for i in some)
            yield EditTask(setup, tuple(cases[i] for i in some), method, ours)
