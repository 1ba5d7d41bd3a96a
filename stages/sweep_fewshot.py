"""How good a few annotated samples are: over shots, strokes and ways to select the samples."""

from pathlib import Path

from pipeline.analysis.fewshot.options import Rule, Sweep
from pipeline.runtime.options import Machine
from stages import run


def sweep_fewshot(
    checkpoint: Path,
    latents: Path,
    masks: Path,
    pixels: Path,
    full: Path,
    table: Path,
    metrics: Path,
    costs: Path,
    *,
    sweep: Sweep,
    rule: Rule,
    machine: Machine,
) -> None:
    """Fit every extractor of the sweep, score all on one pass over the test split."""
    from pipeline.analysis.fewshot.scores import fit_costs, report, write_table
    from pipeline.analysis.fewshot.sweeps import sweep_fewshot
    from pipeline.data.features import open_source
    from pipeline.data.inputs import open_study
    from pipeline.runtime.costs import timed
    from pipeline.runtime.files import read_json, write_json

    source = open_source(checkpoint, latents, machine.device, machine.compute)
    study = open_study(source, str(masks), read_json(pixels)["facts"])
    best = read_json(full)
    rows, cost = timed(sweep_fewshot, study, sweep, rule, machine.workers)
    write_table(table, rows)
    write_json(metrics, report(rows, best))
    write_json(costs, {"whole sweep": cost} | fit_costs(rows))


if __name__ == "__main__":
    run(sweep_fewshot)
