"""Semantic-Conditional Sampling by few-shot LSEs, the full LSE and the teacher, on equal terms."""

from pathlib import Path

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
    target_masks: Path | None = None,  # folder of *.png; None: the teacher's, of samples
    targets: int = 2,
    target_psi: float = 0.5,
    samples: int = 2,
    teacher_samples: int = 1,
    candidates: int,
    steps: int,
    learning_rate: float,
    truncation_psi: float,
    shots: int,
    scs_shots: list[int] = [8],
    refits: int = 1,
    rates: list[float],
    rate_targets: int = 1,
    repeats: int,
    fewshot_seed: int,
    seed: int,
    power: float,
    l2: float,
    iterations: int,
    pixels_per_sample: int,
    labels: str,
    compute: str,
    device: str,
    workers: int = 0,  # processes; 0: one a core
) -> None:
    """Sample for every target by every method; write scores, a row a sample, and the samples."""
    from dataclasses import replace

    from pipeline.analysis.fewshot.fits import Rule
    from pipeline.data.annotation_files import open_pool
    from pipeline.data.annotations import read_annotations
    from pipeline.data.features import open_source
    from pipeline.editing.sampling import study as sampling
    from pipeline.editing.sampling.method import Search
    from pipeline.editing.sampling.pieces import Judges
    from pipeline.editing.sampling.report import write

    source = open_source(checkpoint, latents, device, compute)
    judges = Judges(str(teacher), str(judge), labels)
    rule = Rule(power, l2, iterations, pixels_per_sample)
    few = sampling.FewShot(tuple(sorted({shots, *scs_shots})), refits, repeats, fewshot_seed, rule)
    search = Search(candidates, steps, learning_rate, seed, truncation_psi)
    plan = sampling.Plan(samples, teacher_samples, search, few, tuple(rates), rate_targets)
    study = sampling.open_study(source, masks, pixels, extractor)
    if annotations:
        drawn = read_annotations(annotations, open_pool(source, masks))
        study = replace(study, annotations=drawn)
    wanted = sampling.draw_targets(study, judges, target_masks, targets, seed, target_psi)
    found = sampling.run_study(study, str(extractor), judges, wanted, plan, workers)
    write(found, wanted, study.classes, sampled, metrics, table)


if __name__ == "__main__":
    run(measure_sampling)
