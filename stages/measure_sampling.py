"""Semantic-Conditional Sampling by few-shot LSEs, the full LSE and the teacher, on equal terms."""

from pathlib import Path

from pipeline.editing.sampling.options import Plan
from pipeline.runtime.options import Machine
from stages import run


def measure_sampling(
    checkpoint: Path,
    latents: Path,
    masks: Path,
    pixels: Path,
    extractor: Path,
    teacher: Path,
    judge: Path,
    sampled: Path,
    metrics: Path,
    table: Path,
    *,
    annotations: Path | None = None,  # what people drew; none there: the teacher's masks
    target_masks: Path | None = None,
    labels: str,
    plan: Plan,
    machine: Machine,
) -> None:
    """Sample for every target by every method; write scores, a row a sample, and the samples."""
    from dataclasses import replace

    from pipeline.data.annotation_files import open_pool
    from pipeline.data.annotations import read_annotations
    from pipeline.data.features import open_source
    from pipeline.editing.sampling import study as sampling
    from pipeline.editing.sampling.pieces import Judges
    from pipeline.editing.sampling.report import write

    source = open_source(checkpoint, latents, machine.device, machine.compute)
    judges = Judges(str(teacher), str(judge), labels)
    study = sampling.open_study(source, masks, pixels, extractor)
    if annotations:
        drawn = read_annotations(annotations, open_pool(source, masks))
        study = replace(study, annotations=drawn)
    wanted = sampling.draw_targets(study, judges, target_masks, plan)
    found = sampling.run_study(study, str(extractor), judges, wanted, plan, machine.workers)
    write(found, wanted, study.classes, sampled, metrics, table)


if __name__ == "__main__":
    run(measure_sampling)
