"""All fits of a number of shots, or of a sweep, scored on one pass over the test split.

Fits and scores are pieces in the store, so a number of shots that the sweep has fitted is read.
"""

from pipeline.analysis.fewshot.fits import (
    Fitted,
    annotated_task,
    random_tasks,
    solve_all,
    stroke_tasks,
    wanted,
)
from pipeline.analysis.fewshot.options import Draws, Rule, Sweep
from pipeline.analysis.fewshot.pool import annotate
from pipeline.analysis.fewshot.scores import score
from pipeline.analysis.fewshot.strategies import QUERIES, ROUNDS, SELECTIONS, select_and_solve
from pipeline.data.inputs import Study
from pipeline.runtime.errors import choose


def fit_fewshot(
    study: Study, draws: Draws, rule: Rule, workers: int
) -> tuple[list[Fitted], list[dict]]:
    """Fit an extractor per repeat of the draws; return them and their rows.

    A study with annotations gives one extractor, of all that people annotated.

    Random draws are disjoint. The other strategies choose from a random half of the pool a repeat,
    as in the sweep; queries add samples in rounds.
    """
    shots, strategy = draws.shots, choose("selection", draws.selection, SELECTIONS)
    if study.annotations or strategy == "random":
        tasks = (
            [annotated_task(study)]
            if study.annotations
            else random_tasks(study.pool, [shots], draws.repeats, draws.seed)
        )
        fitted = solve_all(study, tasks, rule)
    else:
        everything = {row: [0] for row in range(study.pool)}
        pool = annotate(study, everything, rule.pixels_per_sample, unlabeled=True)
        rounds = [num for num in ROUNDS if num < shots and strategy in QUERIES]
        found = select_and_solve(
            study, pool, [strategy], [*rounds, shots], draws.repeats, draws.seed, rule
        )
        fitted = [one for one in found if len(one.task.rows) == shots]
    return fitted, score(study, fitted, workers)


def sweep_fewshot(study: Study, sweep: Sweep, rule: Rule, workers: int) -> list[dict]:
    """Fit everything that the sweep names; one table row an extractor."""
    for name in sweep.selections:
        choose("selection", name, SELECTIONS)
    total = study.pool
    tasks = random_tasks(total, sweep.sweep_shots, sweep.repeats, sweep.seed)
    tasks += stroke_tasks(
        total, sweep.stroke_budgets, sweep.stroke_images, sweep.repeats, sweep.seed
    )
    needed = wanted(tasks)
    if sweep.selections:  # any sample may be picked
        needed = {row: sorted({0, *needed.get(row, [])}) for row in range(total)}
    pool = annotate(study, needed, rule.pixels_per_sample, unlabeled=bool(sweep.selections))
    fitted = solve_all(study, tasks, rule, pool)
    fitted += select_and_solve(
        study, pool, sweep.selections, sweep.sweep_shots, sweep.repeats, sweep.seed, rule
    )
    return score(study, fitted, workers)
