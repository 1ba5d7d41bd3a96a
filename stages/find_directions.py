"""Style weights become ranked directions, named and scored by masks beside random directions."""

from pathlib import Path

from stages import run


def find_directions(
    checkpoint: Path,
    latents: Path,
    masks: Path,
    extractor: Path,
    directions: Path,
    metrics: Path,
    *,
    ranges: list[str] = ["all"],
    top: int,
    random: int = 16,  # 100 are better
    samples: int = 3,
    color_samples: int = 1,
    step: float = 6.0,
    max_tap_resolution: int = 64,  # half the cost of 128 on ffhq; poses agree at r = .99
    mask_size: int = 128,
    obvious: float,
    compared: int,
    equal_lab: float,
    spread_samples: int,
    boundary_samples: int = 300,
    boundary_share: float,
    shown: int,
    alphas: list[float],
    seed: int,
    compute: str,
    device: str,
    workers: int = 0,  # processes; 0: one a core
) -> None:
    """Factorize the style weights, measure what directions change, and draw boundaries."""
    from pipeline.data.features import open_source
    from pipeline.editing.directions.study import Plan, open_setup, run_study, write_study
    from pipeline.runtime.files import write_json

    source = open_source(checkpoint, latents, device, compute)
    setup = open_setup(source, extractor, max_tap_resolution, mask_size, samples, color_samples)
    plan = Plan(
        tuple(ranges),
        top,
        random,
        step,
        obvious,
        compared,
        equal_lab,
        spread_samples,
        boundary_samples,
        boundary_share,
        shown,
        tuple(alphas),
        seed,
    )
    study = run_study(setup, plan, masks, workers)
    write_study(directions, study, setup.classes, plan)
    write_json(metrics, study.report)


if __name__ == "__main__":
    run(find_directions)
