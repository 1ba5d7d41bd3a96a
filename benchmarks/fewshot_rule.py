"""The few-shot rule, tuned with draws from the training split and scored on validation pixels.

Neither the pool nor the test split is read. The chosen rule is the section `fewshot_rule` of the
params: one for all shots and both studies.
"""

import time

import numpy as np
import torch

from pipeline.analysis.fewshot import selection
from pipeline.data.features import decode
from pipeline.data.stores import Store, open_store
from pipeline.extractors import problems, solvers
from pipeline.extractors.fitting import Columns, read_columns, validation_miou
from pipeline.runtime.workers import keep_freed_memory

STUDIES, SHOTS, REPEATS = ("digiface", "ffhq"), (1, 4, 16), 2
POWERS = (0.0, 0.5, 1.0)
L2 = [0.3, 0.1, 0.03, 0.01, 0.003]
ITERATIONS = (20, 40, 80)
HELD = 4096  # validation pixels


def measure() -> dict:
    """Weighted mIoU of the validation pixels for every rule, and the best rules over all."""
    torch.set_num_threads(1)
    keep_freed_memory()
    begun = time.process_time()
    table: dict = {"columns are L2": L2}
    shares: dict[tuple, list[float]] = {}
    for study in STUDIES:
        means = scores(study)
        for (shots, power, done), found in means.items():
            name = f"{study}, {shots} shots, power {power}, {done} iterations"
            table[name] = [round(float(v), 2) for v in found]
            # Relative to the best rule at that many shots, so that every shot count weighs.
            top = max(other.max() for key, other in means.items() if key[0] == shots)
            for l2, value in zip(L2, found, strict=True):
                shares.setdefault((power, l2, done), []).append(value / top)
    ranked = sorted(shares.items(), key=lambda pair: -np.mean(pair[1]))[:10]
    table["best (power, L2, iterations)"] = [
        (key, round(float(np.mean(v)), 4)) for key, v in ranked
    ]
    table["CPU s"] = round(time.process_time() - begun, 1)
    return table


def scores(study: str) -> dict[tuple, np.ndarray]:
    """{(shots, power, iterations): mean percent over repeats, for every L2}."""
    store = open_store(f"data/pixels/{study}.json")
    channels, num = np.arange(store.plan.facts["channels"]), store.plan.facts["num_classes"]
    held = read_columns(store, "validation", channels, HELD, "cpu")
    found: dict[tuple, list] = {}
    for rows in selection.disjoint_draws(store.plan.splits["train"], max(SHOTS), REPEATS, seed=0):
        for shots in SHOTS:
            for power in POWERS:
                for done, values in curve(store, rows[:shots], power, held, num):
                    found.setdefault((shots, power, done), []).append(values)
    return {key: 100 * np.mean(values, 0) for key, values in found.items()}


def curve(
    store: Store, rows: np.ndarray, power: float, held: Columns, num_classes: int
) -> list[tuple[int, list[float]]]:
    """(iteration, score of every L2) of one draw."""
    parts = [store.read("train", int(row)) for row in rows]
    data = problems.problem(
        torch.cat([decode(part, "columns")[0] for part in parts]).bfloat16(),
        torch.from_numpy(np.concatenate([part["classes"][0] for part in parts])),
        torch.from_numpy(np.concatenate([part["weights"][0] for part in parts])),
        num_classes,
        False,
        power,
    )
    found = []

    def look(iteration: int, solution: solvers.Solution) -> None:
        if iteration in ITERATIONS:
            found.append((iteration, validation_miou(held, solution, num_classes)))

    solvers.lbfgs(data, L2, max(ITERATIONS), precondition=False, on_iteration=look)
    return found
