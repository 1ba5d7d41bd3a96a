"""Style weights become ranked directions, named and scored by masks beside random directions."""

from pathlib import Path

from pipeline.editing.directions.options import Plan, View
from pipeline.runtime.options import Machine
from stages import run
from stages.paths import Labeled


def find_directions(
    samples: Labeled,
    extractor: Path,
    directions: Path,
    metrics: Path,
    *,
    plan: Plan,
    view: View,
    machine: Machine,
) -> None:
    """Factorize the style weights, measure what directions change, and draw boundaries."""
    from pipeline.editing.directions.study import open_setup, run_study, write_study
    from pipeline.runtime.files import write_json

    setup = open_setup(samples.source(machine), extractor, view)
    study = run_study(setup, plan, samples.masks, machine.workers)
    write_study(directions, study, setup.classes, plan)
    write_json(metrics, study.report)


if __name__ == "__main__":
    run(find_directions)
