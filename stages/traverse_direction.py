"""One sample, by a row of its split or a seed, moved along a direction that was found."""

from pathlib import Path

from pipeline.editing.directions.options import Traversal
from pipeline.editing.options import Start
from pipeline.runtime.options import Synthesis
from stages import run


def traverse_direction(
    checkpoint: Path,
    directions: Path,
    out: Path,
    *,
    traversal: Traversal,
    start: Start,
    machine: Synthesis,
    extractor: Path | None = None,  # fitted LSE; none: no masks below the images
) -> None:
    """Write a strip of images and masks, each image at full size, and the edited latents."""
    from pipeline.editing.directions.traversal import traverse_file
    from pipeline.reporting.directions import write_strip
    from pipeline.runtime.devices import pick_compute, pick_device

    where = pick_device(machine.device)
    compute = pick_compute(machine.compute, where)
    strip, classes = traverse_file(
        checkpoint, directions, traversal, start, extractor, compute, where
    )
    ws, size = strip.ws.cpu().numpy(), traversal.mask_size
    write_strip(out, ws, strip.images, strip.masks, classes, traversal.alphas, size)


if __name__ == "__main__":
    run(traverse_direction)
