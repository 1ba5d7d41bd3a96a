"""How good a few annotated samples are: over shots, strokes and ways to select the samples."""

from pathlib import Path

from pipeline.analysis.fewshot.options import Rule, Sweep
from pipeline.runtime.options import Machine
from stages import run
from stages.paths import Measured, Pixels


def sweep_fewshot(
    samples: Pixels,
    full: Path,
    table: Path,
    measured: Measured,
    *,
    sweep: Sweep,
    rule: Rule,
    machine: Machine,
) -> None:
    """Fit every extractor of the sweep, score all on one pass over the test split."""
    from pipeline.analysis.fewshot.scores import fit_costs, report, write_table
    from pipeline.analysis.fewshot.sweeps import sweep_fewshot
    from pipeline.runtime.costs import timed
    from pipeline.runtime.files import read_json

    study, best = samples.study(machine), read_json(full)
    rows, cost = timed(sweep_fewshot, study, sweep, rule, machine.workers)
    write_table(table, rows)
    measured.write(report(rows, best), {"whole sweep": cost} | fit_costs(rows))


if __name__ == "__main__":
    run(sweep_fewshot)
