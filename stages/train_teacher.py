"""A folder of images and masks becomes a face-parsing network (frozen; the result is committed)."""

from pathlib import Path

from stages import run


def train_teacher(
    faces: Path,
    weights: Path,
    card: Path,
    *,
    architecture: str,
    train: int,
    validation: int,
    test: int,
    train_part: str,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    polish: int,
    device: str,
    start: Path | None = None,  # weights of the same architecture to go on from
    threads: int = 0,  # CPU threads; 0: one a core
) -> None:
    """Train on `faces`/images/* and `faces`/masks/*.png (ids 0-18), split by sorted name.

    Killed, it goes on from the last of the states that it writes every 200 steps beside the
    weights. The model card and the held-out scores are written with the weights.
    """
    import torch

    from pipeline.reporting import model_card
    from pipeline.runtime.devices import pick_device
    from pipeline.runtime.files import atomic
    from pipeline.teachers.training import Recipe
    from pipeline.teachers.training import train as fit

    if threads:
        torch.set_num_threads(threads)
    recipe = Recipe(
        architecture, train, validation, test, train_part, steps, batch, learning_rate, seed, polish
    )
    state = weights.with_suffix(".state")
    facts = fit(faces, weights, recipe, state, torch.device(pick_device(device)), start)
    with atomic(card) as partial:
        partial.write_text(model_card(weights.stem, facts, weights.stat().st_size))


if __name__ == "__main__":
    run(train_teacher)
