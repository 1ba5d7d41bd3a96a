"""The LSE's classifier on features that no generator learned: what the generator contributes."""

from pathlib import Path

from pipeline.analysis.options import Settings
from pipeline.runtime.options import Machine
from stages import run


def measure_controls(
    checkpoint: Path,
    latents: Path,
    images: Path,
    masks: Path,
    judge_masks: Path,
    pixels: Path,
    predictions: Path,
    metrics: Path,
    costs: Path,
    *,
    settings: Settings,
    machine: Machine,
) -> None:
    """Fit and test every control on the LSE's own pixels; write scores and paired differences."""
    from pipeline.analysis.controls import Study
    from pipeline.analysis.controls import measure_controls as measure
    from pipeline.data.arrays import Group
    from pipeline.data.features import open_source
    from pipeline.data.stores import open_store
    from pipeline.runtime.files import write_json

    source = open_source(checkpoint, latents, machine.device, machine.compute)
    study = Study(source, str(images), open_store(pixels))
    predicted, teacher, judge = (
        Group(path).read("test", "masks") for path in (predictions, masks, judge_masks)
    )
    targets = {"teacher": teacher, "judge": judge}
    report, spent = measure(study, settings, predicted, targets, machine.workers)
    write_json(metrics, report)
    write_json(costs, spent)


if __name__ == "__main__":
    run(measure_controls)
