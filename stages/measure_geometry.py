"""How classes lie in the features: centers and cosines, and what each tap knows on its own."""

from pathlib import Path

from pipeline.analysis.geometry.options import Settings
from pipeline.runtime.options import Machine
from stages import run
from stages.paths import Measured, Pixels


def measure_geometry(
    samples: Pixels,
    extractor: Path,
    geometry: Path,
    measured: Measured,
    *,
    settings: Settings,
    machine: Machine,
) -> None:
    """Measure class centers, fair cosines and sets of taps; write scores, and masks to show."""
    from pipeline.analysis.geometry.study import measure_geometry
    from pipeline.data.arrays import write_group
    from pipeline.data.stores import open_store
    from pipeline.extractors.networks import load_extractor
    from pipeline.runtime.costs import timed

    store, study = open_store(samples.pixels), samples.study(machine)
    lse = load_extractor(extractor)
    (report, pictures), cost = timed(measure_geometry, study, store, lse, settings, machine.workers)
    write_group(geometry, pictures, {"classes": study.classes})
    measured.write(report, {"all of it": cost})


if __name__ == "__main__":
    run(measure_geometry)
