"""Few-shot problems: which samples each reads, and its extractor."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.analysis.fewshot import selection
from pipeline.analysis.fewshot.options import Rule
from pipeline.analysis.fewshot.pool import Part, Pool, annotate
from pipeline.data.arrays import Group
from pipeline.data.inputs import Study
from pipeline.data.palette import UNLABELED
from pipeline.extractors import problems, solvers
from pipeline.extractors.networks import LSE
from pipeline.runtime.errors import InputError
from pipeline.runtime.pieces import Kind

PIECES = Kind("fewshot_fits", __name__)


@dataclass(frozen=True)
class Task:
    """One extractor to fit: which rows of the pool, and how each is annotated."""

    rows: tuple[int, ...]
    repeat: int
    selection: str = "random"
    candidates: str = "pool"  # or half: of the paired comparison of strategies
    strokes: int = 0  # labeled pixels a sample; 0: the full mask

    @property
    def facts(self) -> dict:
        """What a table says of it."""
        return {
            "shots": len(self.rows),
            "repeat": self.repeat,
            "selection": self.selection,
            "candidates": self.candidates,
            "annotation": "strokes" if self.strokes else "full",
        }


def random_tasks(pool: int, shots: Sequence[int], repeats: int, seed: int) -> list[Task]:
    """Full masks of disjoint draws, for every number of shots."""
    return [
        Task(tuple(rows.tolist()), repeat)
        for num in shots
        for repeat, rows in enumerate(selection.disjoint_draws(pool, num, repeats, seed))
    ]


def annotated_task(study: Study) -> Task:
    """The one task of a study with annotations: all of them."""
    return Task(tuple(sorted(study.annotations)), 0, "annotated")


def stroke_tasks(
    pool: int,
    budgets: Sequence[int],  # labeled pixels in all
    images: Sequence[int],  # over how many samples they are spread, evenly
    repeats: int,
    seed: int,
) -> list[Task]:
    """Strokes on the same samples that the full masks of as many shots have."""
    for budget in budgets:
        if budget < max(images, default=0):
            raise InputError(
                f"a stroke budget of {budget} pixels over {max(images)} images",
                "at least one pixel an image",
                "raise stroke_budgets",
            )
    return [
        Task(task.rows, task.repeat, strokes=budget // len(task.rows))
        for budget in budgets
        for task in random_tasks(pool, images, repeats, seed)
    ]


def wanted(tasks: Sequence[Task]) -> dict[int, list[int]]:
    """The annotations of each row of the pool that the tasks need, each once."""
    found: dict[int, dict[int, None]] = {}
    for task in tasks:
        for row in task.rows:
            found.setdefault(row, {})[task.strokes] = None
    return {row: list(kinds) for row, kinds in found.items()}


def fit(pool: Pool, task: Task, rule: Rule, num_classes: int) -> Float[Tensor, "channel class"]:
    """Solve one task; every sample counts the same."""
    return fit_parts([pool.parts[row, task.strokes] for row in task.rows], rule, num_classes)


def fit_parts(
    parts: Sequence[Part], rule: Rule, num_classes: int
) -> Float[Tensor, "channel class"]:
    """Solve for the pixels of some annotations."""
    data = problems.problem(
        torch.cat([part.x for part in parts]),
        torch.cat([part.y for part in parts]),
        torch.cat([part.weights for part in parts]),
        num_classes,
        bias=False,
        power=rule.power,
    )
    found = solvers.lbfgs(data, [rule.l2], rule.iterations, precondition=False)
    return found.matrix[0].cpu()


@dataclass(frozen=True)
class Fitted:
    """A solved task: its extractor, and what it cost."""

    task: Task
    extractor: LSE
    labeled_pixels: int
    cpu_seconds: float


def solve(study: Study, pool: Pool, task: Task, rule: Rule) -> Fitted:
    """Fit a task and time it."""
    cpu = time.process_time()
    matrix = fit(pool, task, rule, len(study.classes))
    return _fitted(study, task, matrix, time.process_time() - cpu)


def _fitted(study: Study, task: Task, matrix: Tensor, cpu_seconds: float) -> Fitted:
    extractor = LSE(study.classes, study.taps, align_corners=study.align_corners)
    extractor.set_matrix(matrix)
    size = Group(study.masks).label_size
    labeled = sum(
        int((study.annotations[row] != UNLABELED).sum())
        if row in study.annotations
        else task.strokes or size * size
        for row in task.rows
    )
    return Fitted(task, extractor.requires_grad_(False), labeled, cpu_seconds)


def kept(study: Study, task: Task, rule: Rule) -> Fitted | None:
    """The fit of a task that an earlier run, or another stage, has finished."""
    found = PIECES.read(_facts(study, task, rule))
    if found is None:
        return None
    return _fitted(study, task, torch.from_numpy(found["matrix"]), float(found["cpu_seconds"]))


def solve_all(
    study: Study, tasks: Sequence[Task], rule: Rule, pool: Pool | None = None
) -> list[Fitted]:
    """Fit every task that no earlier run has finished; `pool` is read for these, or None."""
    done = {task: kept(study, task, rule) for task in tasks}
    found = {task: fitted for task, fitted in done.items() if fitted is not None}
    missing = [task for task in done if task not in found]
    if missing:
        pool = annotate(study, wanted(missing), rule.pixels_per_sample) if pool is None else pool
        for task in missing:
            found[task] = fitted = solve(study, pool, task, rule)
            matrix = torch.cat([weight.T for weight in fitted.extractor.weights])
            arrays = {"matrix": matrix.numpy(), "cpu_seconds": np.array(fitted.cpu_seconds)}
            PIECES.write(_facts(study, task, rule), arrays)
    return [found[task] for task in tasks]


def _facts(study: Study, task: Task, rule: Rule) -> dict:
    """All that a fit depends on: which draw of the pool it is does not matter, only its rows."""
    drawn = {str(row): study.annotations.get(row) for row in task.rows}
    return {
        "study": study.facts,
        "rows": task.rows,
        "strokes": task.strokes,
        "annotations": {row: mask.tolist() for row, mask in drawn.items() if mask is not None},
        "rule": asdict(rule),
    }
