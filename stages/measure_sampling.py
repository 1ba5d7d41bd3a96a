"""Semantic-Conditional Sampling by few-shot LSEs, the full LSE and the teacher, on equal terms."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.editing.sampling.options import Plan
from pipeline.runtime.options import Machine
from stages import run
from stages.paths import Networks, Pixels


@dataclass(frozen=True)
class Outputs:
    """What was sampled, and its scores."""

    sampled: Path
    metrics: Path
    table: Path


@dataclass(frozen=True)
class Drawn:
    """Masks that people drew, instead of the teacher's."""

    annotations: Path | None = None  # what people drew; none there: the teacher's masks
    # Folder of target masks, *.png of class ids; none: the teacher's, of samples.
    target_masks: Path | None = None


def measure_sampling(
    samples: Pixels,
    extractor: Path,
    networks: Networks,
    outputs: Outputs,
    *,
    drawn: Drawn,
    labels: str,
    plan: Plan,
    machine: Machine,
) -> None:
    """Sample for every target by every method; write scores, a row a sample, and the samples."""
    from dataclasses import replace

    from pipeline.data.annotation_files import open_pool
    from pipeline.data.annotations import read_annotations
    from pipeline.editing.sampling import study as sampling
    from pipeline.editing.sampling.pieces import Judges
    from pipeline.editing.sampling.report import write

    source, judges = (
        samples.source(machine),
        Judges(str(networks.teacher), str(networks.judge), labels),
    )
    study = sampling.open_study(source, samples.masks, samples.pixels, extractor)
    if drawn.annotations:
        pool = open_pool(source, samples.masks)
        study = replace(study, annotations=read_annotations(drawn.annotations, pool))
    wanted = sampling.draw_targets(study, judges, drawn.target_masks, plan)
    found = sampling.run_study(study, str(extractor), judges, wanted, plan, machine.workers)
    write(found, wanted, study.classes, outputs.sampled, outputs.metrics, outputs.table)


if __name__ == "__main__":
    run(measure_sampling)
