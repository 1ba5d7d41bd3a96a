"""Learning rates of the NSEs: short fits, scored on the validation split, by one rule.

The rule: the highest validation mIoU; while the best rate is the lowest or the highest one tried,
the next one (a factor of about 3) is tried as well. The test split is never read.
RATES_STUDIES and RATES_EXTRACTORS (comma-separated) shorten the run.
"""

import os

import torch

from pipeline.data.stores import open_store
from pipeline.extractors.fitting import fit_nonlinear
from pipeline.extractors.training import Schedule
from pipeline.runtime.progress import say

STUDIES = os.environ.get("RATES_STUDIES", "digiface,ffhq").split(",")
EXTRACTORS = os.environ.get("RATES_EXTRACTORS", "nse1,nse1_3x3,nse2").split(",")
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
FIRST = (1e-3, 3e-3, 1e-2)
STEPS, BATCH, WINDOW, WIDTH = int(os.environ.get("RATES_STEPS", 350)), 8, 64, 64


def score(study: str, name: str, rate: float) -> dict:
    """Validation mIoU of a short fit, and its cost."""
    schedule = Schedule(STEPS, BATCH, WINDOW, rate, looks=1, patience=1)
    features, pixels = (open_store(f"data/{kind}/{study}.json") for kind in ("features", "pixels"))
    masks = f"data/masks/{study}.zarr.zip"
    _, facts = fit_nonlinear(features, masks, pixels, name, WIDTH, schedule, "cpu")
    say(f"{study} {name} {rate}: {facts['validation_miou']} in {facts['cpu_seconds']} CPU s")
    return {"miou": facts["validation_miou"], "cpu_seconds": facts["cpu_seconds"]}


def search(study: str, name: str) -> dict[float, dict]:
    """Scores by rate; the best one has a worse neighbor on either side, or ends the grid."""
    found = {rate: score(study, name, rate) for rate in FIRST}
    while True:
        best = RATES.index(max(found, key=lambda rate: found[rate]["miou"]))
        beside = [RATES[i] for i in (best - 1, best + 1) if 0 <= i < len(RATES)]
        if not (untried := [rate for rate in beside if rate not in found]):
            return dict(sorted(found.items()))
        found |= {rate: score(study, name, rate) for rate in untried}


def measure() -> dict:
    """Validation mIoU after short fits, and the best rate, per study and extractor."""
    torch.set_num_threads(1)
    result: dict = {"steps": STEPS, "samples a step": BATCH}
    for study in STUDIES:
        for name in EXTRACTORS:
            found = search(study, name)
            scores = {f"{rate:g}": row["miou"] for rate, row in found.items()}
            result[f"{study} {name}: validation mIoU by rate"] = scores
            result[f"{study} {name}: chosen rate"] = max(found, key=lambda r: found[r]["miou"])
            cpu = [row["cpu_seconds"] for row in found.values()]
            result[f"{study} {name}: CPU s a fit"] = round(sum(cpu) / len(cpu), 1)
    return result
