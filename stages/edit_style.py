"""Editing in Style: parts of a reference's look on a target, beside baselines and a control."""

from pathlib import Path

from pipeline.editing.style.options import ClusterRule, Plan
from pipeline.runtime.options import Machine
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
    plan: Plan,
    rule: ClusterRule,
    machine: Machine,
) -> None:
    """Name clusters by masks, measure contributions, edit pairs by every method; write all."""
    from pipeline.data.features import open_source
    from pipeline.editing.style import report as reports
    from pipeline.editing.style.options import at_paper_sizes
    from pipeline.editing.style.study import Inputs, run_study
    from pipeline.runtime.files import read_json, write_json

    source = open_source(checkpoint, latents, machine.device, machine.compute)
    if not (generator := source.generator()).styles:
        write_json(styled / "catalog.json", found := reports.skipped(generator.family))
        return write_json(metrics, found)
    inputs = Inputs(source, str(images), str(masks), str(features), str(extractor))
    if plan.paper_sizes:
        plan, rule = at_paper_sizes(plan, rule)
    study = run_study(inputs, plan, rule, machine.workers)
    reports.write_study(styled, study, plan, inputs)
    write_json(metrics, reports.report(study, plan, read_json(full)))


if __name__ == "__main__":
    run(edit_style)
