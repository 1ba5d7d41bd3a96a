"""Scripted edits by color, by the teacher and by extractors, scored by the judge."""

from pathlib import Path

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
    kinds: list[str] = ["add_glasses", "add_hat", "close_mouth", "remove_hair"],
    samples: int = 2,
    image_samples: int = 1,
    rows: int = 32,
    space: str,
    steps: int,
    learning_rate: float,
    near: float,
    prior: float,
    truncation_psi: float,
    loop_tap_resolution: int = 128,
    success_iou: float,
    success_lab: float,
    labels: str,
    compute: str,
    device: str,
    more_edits: Path | None = None,  # a user's own, all of which are taken
    workers: int = 0,  # processes; 0: one a core
) -> None:
    """Edit the first test samples that each edit applies to; write scores, pictures and vectors."""
    from pipeline.editing.semantic.cases import Setup, open_samples
    from pipeline.editing.semantic.files import read_edits, select_edits
    from pipeline.editing.semantic.method import Rule
    from pipeline.editing.semantic.study import Success, run_study, write_study
    from pipeline.runtime.devices import pick_compute, pick_device
    from pipeline.runtime.files import write_json

    chosen = select_edits(read_edits(edits), kinds) + (read_edits(more_edits) if more_edits else [])
    source = open_samples(latents, images, masks, checkpoint, rows)
    where = pick_device(device)
    setup = Setup(
        str(checkpoint),
        str(teacher),
        str(judge),
        source.size,
        {"fewshot": str(fewshot), "full": str(extractor)},
        loop_tap_resolution,
        Rule(space, steps, learning_rate, near, prior, truncation_psi),
        labels,
        pick_compute(compute, where),
        where,
        image_samples,
    )
    success = Success(success_iou, success_lab)
    study = run_study(setup, chosen, source, samples, success, workers)
    write_study(edited, study, checkpoint)
    write_json(metrics, study.report)
    write_json(costs, study.costs)


if __name__ == "__main__":
    run(measure_editing)
