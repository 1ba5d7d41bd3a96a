"""The few-shot rule, tuned with draws from the training split and scored on validation pixels.

Neither the pool nor the test split is read. RULE_STUDY (default ffhq) picks the study. The chosen
rule is the params' section `fewshot`; it is one for all shots and both studies.
"""

import os
import time

import numpy as np
import torch

from pipeline import selection, solvers
from pipeline.files import read_json
from pipeline.fitting import read_columns, validation_miou
from pipeline.stores import open_store
from pipeline.workers import keep_freed_memory

STUDY = os.environ.get("RULE_STUDY", "ffhq")
SHOTS, REPEATS = (1, 4, 16), 2
POWERS = (0.0, 0.5, 1.0)
L2 = [0.3, 0.1, 0.03, 0.01, 0.003]
ITERATIONS = (20, 40, 80)
HELD = 4096  # validation pixels


def measure() -> dict:
    """Weighted mIoU of the validation pixels, mean over shots and repeats, for every rule."""
    torch.set_num_threads(1)
    keep_freed_memory()
    begun = time.process_time()
    store = open_store(f"data/pixels/{STUDY}.json")
    facts = read_json(f"data/pixels/{STUDY}.json")["facts"]
    channels, num = np.arange(facts["channels"]), facts["num_classes"]
    held = read_columns(store, "validation", channels, HELD, torch.bfloat16, "cpu")
    draws = selection.disjoint_draws(store.plan.splits["train"], max(SHOTS), REPEATS, seed=0)
    scores: dict[tuple, list] = {}  # (shots, power, iterations): [repeat][l2]
    for rows in draws:
        for shots in SHOTS:
            for power in POWERS:
                for done, found in curve(store, rows[:shots], power, held, num):
                    scores.setdefault((shots, power, done), []).append(found)
    means = {key: 100 * np.mean(found, 0) for key, found in scores.items()}
    table = {f"study, L2 {L2}": f"{STUDY}, {REPEATS} repeats"}
    table |= {
        f"shots {shots}, power {power}, {done} iterations": [round(float(v), 2) for v in found]
        for (shots, power, done), found in means.items()
    }
    overall = {  # relative to the best rule at that many shots, so that every shot count weighs
        (power, l2, done): np.mean(
            [
                means[s, power, done][i]
                / max(found.max() for key, found in means.items() if key[0] == s)
                for s in SHOTS
            ]
        )
        for power in POWERS
        for done in ITERATIONS
        for i, l2 in enumerate(L2)
    }
    ranked = sorted(overall.items(), key=lambda pair: -pair[1])[:8]
    table["best (power, L2, iterations)"] = [(key, round(float(v), 4)) for key, v in ranked]
    table["CPU s"] = round(time.process_time() - begun, 1)
    return table


def curve(store, rows: np.ndarray, power: float, held, num_classes: int):
    """(iteration, score of every L2) of one draw."""
    from pipeline.features import decode

    parts = [store.read("train", int(row)) for row in rows]
    data = solvers.problem(
        torch.cat([decode(part, "columns", 2)[0] for part in parts]).bfloat16(),
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
