"""A few annotated samples of the pool become linear extractors, one a repeat, and their scores."""

from pathlib import Path

from stages import run


def fit_fewshot(
    checkpoint: Path,
    latents: Path,
    masks: Path,
    pixels: Path,
    full: Path,
    extractors: Path,
    metrics: Path,
    *,
    shots: int,
    selection: str,
    repeats: int,
    seed: int,
    power: float,
    l2: float,
    iterations: int,
    pixels_per_sample: int,
    compute: str,
    device: str,
    workers: int = 0,  # processes; 0: one a core
) -> None:
    """Fit on draws of `shots` samples; write an extractor a repeat, and mean scores."""
    from pipeline.devices import pick_device
    from pipeline.extractors import save_extractor
    from pipeline.features import Source
    from pipeline.fewshot import Rule, fit_fewshot, open_study, summary, timed
    from pipeline.files import read_json, write_json

    source = Source(str(checkpoint), str(latents), pick_device(device), compute)
    study = open_study(source, str(masks), read_json(pixels)["facts"])
    rule = Rule(power, l2, iterations, pixels_per_sample)
    best = read_json(full)
    (fitted, rows), cost = timed(fit_fewshot, study, shots, repeats, seed, rule, workers, selection)
    extractors.mkdir(parents=True, exist_ok=True)
    for one in fitted:
        path = extractors / f"{one.task.repeat}.safetensors"
        save_extractor(path, one.extractor, {"name": "fewshot", "rows": one.task.rows})
    write_json(metrics, {"shots": shots, "selection": selection} | summary(rows, best) | cost)


if __name__ == "__main__":
    run(fit_fewshot)
