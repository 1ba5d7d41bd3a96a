"""The LSE's classifier on features that no generator learned: what the generator contributes."""

from pathlib import Path

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
    controls: list[str],
    l2: list[float],
    iterations: int,
    pixel_budget: int,
    seed: int,
    compute: str,
    device: str,
    workers: int = 0,  # processes; 0: one a core
) -> None:
    """Fit and test every control on the LSE's own pixels; write scores and paired differences."""
    from pipeline.analysis.controls import Settings, Study
    from pipeline.analysis.controls import measure_controls as measure
    from pipeline.data.arrays import Group
    from pipeline.data.features import open_source
    from pipeline.data.stores import open_store
    from pipeline.runtime.files import write_json

    source = open_source(checkpoint, latents, device, compute)
    study = Study(source, str(images), open_store(pixels))
    settings = Settings(tuple(l2), iterations, pixel_budget, seed, workers)
    predicted, teacher, judge = (
        Group(path).read("test", "masks") for path in (predictions, masks, judge_masks)
    )
    targets = {"teacher": teacher, "judge": judge}
    report, spent = measure(controls, study, settings, predicted, targets)
    write_json(metrics, report)
    write_json(costs, spent)


if __name__ == "__main__":
    run(measure_controls)
