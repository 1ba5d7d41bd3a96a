"""Scripted edits by color, by the teacher and by extractors, scored by the judge."""

from pathlib import Path

from pipeline.editing.semantic.options import CaseRule, Rule, Success
from pipeline.runtime.options import Machine
from stages import run


def measure_editing(
    checkpoint: Path,
    latents: Path,
    images: Path,
    masks: Path,
    extractor: Path,
    fewshot: Path,
    teacher: Path,
    judge: Path,
    edits: Path,
    edited: Path,
    metrics: Path,
    costs: Path,
    *,
    cases: CaseRule,
    rule: Rule,
    success: Success,
    machine: Machine,
    labels: str,
    more_edits: Path | None = None,
) -> None:
    """Edit the first test samples that each edit applies to; write scores, pictures and vectors."""
    from pipeline.editing.semantic.cases import Setup, open_samples
    from pipeline.editing.semantic.files import read_edits, select_edits
    from pipeline.editing.semantic.study import run_study, write_study
    from pipeline.runtime.devices import pick_compute, pick_device
    from pipeline.runtime.files import write_json

    chosen = select_edits(read_edits(edits), cases.kinds)
    chosen += read_edits(more_edits) if more_edits else []
    source = open_samples(latents, images, masks, checkpoint, cases.rows)
    where = pick_device(machine.device)
    setup = Setup(
        checkpoint=str(checkpoint),
        teacher=str(teacher),
        judge=str(judge),
        label_size=source.label_size,
        extractors={"fewshot": str(fewshot), "full": str(extractor)},
        loop_tap_resolution=cases.loop_tap_resolution,
        rule=rule,
        labels=labels,
        compute=pick_compute(machine.compute, where),
        device=where,
        image_samples=cases.image_samples,
    )
    study = run_study(setup, chosen, source, cases.samples, success, machine.workers)
    write_study(edited, study, checkpoint)
    write_json(metrics, study.report)
    write_json(costs, study.costs)


if __name__ == "__main__":
    run(measure_editing)
