"""How classes lie in the features: centers and cosines, and what each tap knows on its own."""

from pathlib import Path

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
    pixel_budget: int = 32768,
    l2: list[float],
    iterations: int = 12,
    layer_weight: float,
    greedy_taps: int,
    fair_pixels: int = 200,  # the paper's T1
    fair_pool: int = 4000,  # and T2
    fair_images: int = 28,
    shown: int,
    seed: int,
    compute: str,
    device: str,
    workers: int = 0,  # processes; 0: one a core
) -> None:
    """Measure class centers, fair cosines and sets of taps; write scores, and masks to show."""
    from pipeline.analysis.geometry.study import Settings, measure_geometry
    from pipeline.data.arrays import write_group
    from pipeline.data.features import open_source
    from pipeline.data.inputs import open_study
    from pipeline.data.stores import open_store
    from pipeline.extractors.networks import load_extractor
    from pipeline.runtime.costs import timed
    from pipeline.runtime.files import write_json

    source = open_source(checkpoint, latents, device, compute)
    store = open_store(pixels)
    study = open_study(source, str(masks), store.plan.facts)
    sizes = Settings(
        pixel_budget,
        tuple(l2),
        iterations,
        layer_weight,
        greedy_taps,
        fair_pixels,
        fair_pool,
        fair_images,
        shown,
        seed,
        workers,
    )
    lse = load_extractor(extractor)
    (report, pictures), cost = timed(measure_geometry, study, store, lse, sizes)
    write_group(geometry, pictures, {"classes": study.classes})
    write_json(metrics, report)
    write_json(costs, {"all of it": cost})


if __name__ == "__main__":
    run(measure_geometry)
