"""How classes lie in the features: centers and cosines, and what each tap knows on its own."""

from pathlib import Path

from pipeline.analysis.geometry.options import Settings
from pipeline.runtime.options import Machine
from stages import run


def measure_geometry(
    checkpoint: Path,
    latents: Path,
    masks: Path,
    pixels: Path,
    extractor: Path,
    geometry: Path,
    metrics: Path,
    costs: Path,
    *,
    settings: Settings,
    machine: Machine,
) -> None:
    """Measure class centers, fair cosines and sets of taps; write scores, and masks to show."""
    from pipeline.analysis.geometry.study import measure_geometry
    from pipeline.data.arrays import write_group
    from pipeline.data.features import open_source
    from pipeline.data.inputs import open_study
    from pipeline.data.stores import open_store
    from pipeline.extractors.networks import load_extractor
    from pipeline.runtime.costs import timed
    from pipeline.runtime.files import write_json

    source = open_source(checkpoint, latents, machine.device, machine.compute)
    store = open_store(pixels)
    study = open_study(source, str(masks), store.plan.facts)
    lse = load_extractor(extractor)
    (report, pictures), cost = timed(measure_geometry, study, store, lse, settings, machine.workers)
    write_group(geometry, pictures, {"classes": study.classes})
    write_json(metrics, report)
    write_json(costs, {"all of it": cost})


if __name__ == "__main__":
    run(measure_geometry)
