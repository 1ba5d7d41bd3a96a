"""A folder of images and masks becomes a face-parsing network (frozen; the result is committed)."""

from pathlib import Path

from pipeline.runtime.options import Device
from pipeline.teachers.options import Recipe
from stages import run


def train_teacher(
    faces: Path,
    weights: Path,
    card: Path,
    *,
    recipe: Recipe,
    machine: Device,
    start: Path | None = None,  # weights of the same architecture to go on from; none: random ones
    threads: int = 0,  # CPU threads; 0: one per core
) -> None:
    """Train on `faces`/images/* and `faces`/masks/*.png (ids 0-18), split by sorted name.

    Killed, it goes on from the last of the states that it writes every 200 steps beside the
    weights. The model card and the held-out scores are written with the weights.
    """
    import torch

    from pipeline.reporting.cards import model_card
    from pipeline.runtime.devices import pick_device
    from pipeline.runtime.files import atomic
    from pipeline.teachers.training import train as fit

    if threads:
        torch.set_num_threads(threads)
    state = weights.with_suffix(".state")
    facts = fit(faces, weights, recipe, state, torch.device(pick_device(machine.device)), start)
    with atomic(card) as partial:
        partial.write_text(model_card(weights.stem, facts, weights.stat().st_size))


if __name__ == "__main__":
    run(train_teacher)
