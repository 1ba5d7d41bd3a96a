"""The LSE's classifier on features that no generator learned: what the generator contributes."""

from pathlib import Path

from pipeline.analysis.options import Settings
from pipeline.runtime.options import Machine
from stages import run
from stages.paths import Imaged, Measured


def measure_controls(
    samples: Imaged,
    judge_masks: Path,
    pixels: Path,
    predictions: Path,
    measured: Measured,
    *,
    settings: Settings,
    machine: Machine,
) -> None:
    """Fit and test every control on the LSE's own pixels; write scores and paired differences."""
    from pipeline.analysis.controls import Study
    from pipeline.analysis.controls import measure_controls as measure
    from pipeline.data.arrays import Group
    from pipeline.data.stores import open_store

    study = Study(samples.source(machine), str(samples.images), open_store(pixels))
    predicted, teacher, judge = (
        Group(path).read("test", "masks") for path in (predictions, samples.masks, judge_masks)
    )
    targets = {"teacher": teacher, "judge": judge}
    measured.write(*measure(study, settings, predicted, targets, machine.workers))


if __name__ == "__main__":
    run(measure_controls)
