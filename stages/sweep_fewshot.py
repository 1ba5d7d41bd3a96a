"""How good a few annotated samples are: over shots, strokes and ways to select the samples."""

from pathlib import Path

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
    sweep_shots: list[int],
    selections: list[str],
    stroke_budgets: list[int],
    stroke_images: list[int],
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
    """Fit every extractor of the sweep, score all on one pass over the test split."""
    from pipeline.analysis.fewshot.fits import Rule
    from pipeline.analysis.fewshot.scores import fit_costs, report, write_table
    from pipeline.analysis.fewshot.sweeps import Sweep, sweep_fewshot
    from pipeline.data.features import open_source
    from pipeline.data.inputs import open_study
    from pipeline.runtime.costs import timed
    from pipeline.runtime.files import read_json, write_json

    source = open_source(checkpoint, latents, device, compute)
    study = open_study(source, str(masks), read_json(pixels)["facts"])
    rule = Rule(power, l2, iterations, pixels_per_sample)
    wanted = (sweep_shots, repeats, selections, stroke_budgets, stroke_images, seed)
    best = read_json(full)
    rows, cost = timed(sweep_fewshot, study, Sweep(*wanted), rule, workers)
    write_table(table, rows)
    write_json(metrics, report(rows, best))
    write_json(costs, {"whole sweep": cost} | fit_costs(rows))


if __name__ == "__main__":
    run(sweep_fewshot)
