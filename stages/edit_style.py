"""Editing in Style: parts of a reference's look on a target, beside baselines and a control."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.editing.style.options import ClusterRule, Plan
from pipeline.runtime.options import Machine
from stages import run
from stages.paths import Imaged


@dataclass(frozen=True)
class Samples(Imaged):
    """Samples with the cached taps that are clustered, and the LSE that clusters stand beside."""

    features: Path
    extractor: Path
    full: Path


def edit_style(
    samples: Samples,
    styled: Path,
    metrics: Path,
    *,
    plan: Plan,
    rule: ClusterRule,
    machine: Machine,
) -> None:
    """Name clusters by masks, measure contributions, edit pairs by every method; write all."""
    from pipeline.editing.style import report as reports
    from pipeline.editing.style.options import at_paper_sizes
    from pipeline.editing.style.study import Inputs, run_study
    from pipeline.runtime.files import read_json, write_json

    source = samples.source(machine)
    if not (generator := source.generator()).styles:
        write_json(styled / "catalog.json", found := reports.skipped(generator.family))
        return write_json(metrics, found)
    inputs = Inputs(
        source,
        str(samples.images),
        str(samples.masks),
        str(samples.features),
        str(samples.extractor),
    )
    if plan.paper_sizes:
        plan, rule = at_paper_sizes(plan, rule)
    study = run_study(inputs, plan, rule, machine.workers)
    reports.write_study(styled, study, plan, inputs)
    write_json(metrics, reports.report(study, plan, read_json(samples.full)))


if __name__ == "__main__":
    run(edit_style)
