"""One sample, by a row of its split or a seed, moved along a direction that was found."""

from pathlib import Path

from stages import run


def traverse_direction(
    checkpoint: Path,
    directions: Path,
    out: Path,
    *,
    direction: str = "all/sefa/0",
    alphas: list[float] = [-4.0, -2.0, 0.0, 2.0, 4.0],
    without: list[str] = [],  # directions whose projections stay as they are
    absolute: bool = False,
    extractor: Path | None = None,  # None: no masks below the images
    latents: Path | None = None,  # None: z is drawn from `seed`
    split: str = "test",
    row: int = 0,
    seed: int = 0,
    truncation_psi: float | None = None,  # None: that of the study
    mask_size: int = 256,
    compute: str = "auto",
    device: str = "auto",
) -> None:
    """Write a strip of images and masks, each image at full size, and the edited latents."""
    from pipeline.editing.directions.traversal import Start, traverse_file
    from pipeline.reporting.directions import write_strip
    from pipeline.runtime.devices import pick_compute, pick_device

    where = pick_device(device)
    start = Start(latents, split, row, seed, truncation_psi)
    strip, classes = traverse_file(
        checkpoint,
        directions,
        direction,
        alphas,
        without=without,
        absolute=absolute,
        start=start,
        extractor=extractor,
        size=mask_size,
        compute=pick_compute(compute, where),
        device=where,
    )
    write_strip(out, strip.ws.cpu().numpy(), strip.images, strip.masks, classes, alphas, mask_size)


if __name__ == "__main__":
    run(traverse_direction)
