"""Editing in Style: parts of a reference's look on a target, beside baselines and a control."""

from pathlib import Path

from stages import run


def edit_style(
    checkpoint: Path,
    latents: Path,
    images: Path,
    masks: Path,
    features: Path,
    extractor: Path,
    full: Path,
    styled: Path,
    metrics: Path,
    *,
    parts: list[str],
    pairs: int,
    samples: int,
    resolutions: list[int],
    counts: list[int],
    cluster_samples: int,
    held_out: int,
    restarts: int,
    normalization: str,
    resampling: str,
    min_iou: float,
    epsilons: list[float],
    lambdas: list[float],
    interpolations: list[float],
    contribution_threshold: float,
    coarse_share: float,
    matched_share: float,
    paper_sizes: bool,
    seed: int,
    compute: str,
    device: str,
    workers: int = 0,  # processes; 0: one a core
) -> None:
    """Name clusters by masks, measure contributions, edit pairs by every method; write all."""
    from pipeline.data.features import open_source
    from pipeline.editing.style import report as reports
    from pipeline.editing.style.catalog import ClusterRule
    from pipeline.editing.style.plan import Plan, at_paper_sizes, parse_parts, strengths
    from pipeline.editing.style.study import Inputs, run_study
    from pipeline.runtime.files import read_json, write_json

    source = open_source(checkpoint, latents, device, compute)
    if not (generator := source.generator()).styles:
        write_json(styled / "catalog.json", found := reports.skipped(generator.family))
        return write_json(metrics, found)
    inputs = Inputs(source, *map(str, (images, masks, features, extractor)))
    asked = strengths(epsilons, lambdas, interpolations)
    where = (contribution_threshold, coarse_share, resampling, matched_share, seed)
    plan = Plan(parse_parts(parts), pairs, samples, asked, *where)
    sizes = (tuple(resolutions), tuple(counts), cluster_samples, held_out, restarts)
    rule = ClusterRule(*sizes, normalization, min_iou, seed)
    if paper_sizes:
        plan, rule = at_paper_sizes(plan, rule)
    study = run_study(inputs, plan, rule, workers)
    reports.write_study(styled, study, plan, inputs)
    write_json(metrics, reports.report(study, plan, read_json(full)))


if __name__ == "__main__":
    run(edit_style)
