"""A few annotated samples of the pool become linear extractors, one a repeat, and their scores."""

from pathlib import Path

from pipeline.analysis.fewshot.options import Draws, Rule
from pipeline.runtime.options import Machine
from stages import run
from stages.paths import Measured, Pixels


def fit_fewshot(
    samples: Pixels,
    full: Path,
    extractors: Path,
    measured: Measured,
    *,
    annotations: Path | None = None,  # what people drew; none there: the teacher's masks
    draws: Draws,
    rule: Rule,
    machine: Machine,
) -> None:
    """Fit on draws of `shots` samples; write an extractor a repeat, and mean scores."""
    from dataclasses import replace
    from shutil import rmtree

    from pipeline.analysis.fewshot.scores import fit_costs, summary
    from pipeline.analysis.fewshot.sweeps import fit_fewshot
    from pipeline.data.annotation_files import open_pool
    from pipeline.data.annotations import describe, read_annotations
    from pipeline.extractors.networks import save_extractor
    from pipeline.runtime.costs import timed
    from pipeline.runtime.files import read_json

    study = samples.study(machine)
    if annotations:
        drawn = read_annotations(annotations, open_pool(study.source, samples.masks))
        if drawn:
            print(describe(drawn, study.classes, annotations))
        study = replace(study, annotations=drawn)
        draws = replace(draws, shots=len(drawn) or draws.shots)
    best = read_json(full)
    (fitted, rows), cost = timed(fit_fewshot, study, draws, rule, machine.workers)
    rmtree(extractors, ignore_errors=True)  # annotations give one, draws several
    extractors.mkdir(parents=True)
    for one in fitted:
        path = extractors / f"{one.task.repeat}.safetensors"
        save_extractor(path, one.extractor, {"name": "fewshot", "rows": one.task.rows})
    report = {"shots": draws.shots, "selection": fitted[0].task.selection} | summary(rows, best)
    measured.write(report, {"fits and scores": cost} | fit_costs(rows))


if __name__ == "__main__":
    run(fit_fewshot)
