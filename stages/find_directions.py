"""Style weights become ranked directions, named and scored by masks beside random directions."""

from pathlib import Path

from pipeline.editing.directions.options import Plan, View
from pipeline.runtime.options import Machine
from stages import run


def find_directions(
    checkpoint: Path,
    latents: Path,
    masks: Path,
    extractor: Path,
    directions: Path,
    metrics: Path,
    *,
    plan: Plan,
    view: View,
    machine: Machine,
) -> None:
    """Factorize the style weights, measure what directions change, and draw boundaries."""
    from pipeline.data.features import open_source
    from pipeline.editing.directions.study import open_setup, run_study, write_study
    from pipeline.runtime.files import write_json

    source = open_source(checkpoint, latents, machine.device, machine.compute)
    setup = open_setup(source, extractor, view)
    study = run_study(setup, plan, masks, machine.workers)
    write_study(directions, study, setup.classes, plan)
    write_json(metrics, study.report)


if __name__ == "__main__":
    run(find_directions)
