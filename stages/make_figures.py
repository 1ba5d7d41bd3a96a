"""Stored images and masks become pictures: image, teacher, judge and LSE side by side."""

from pathlib import Path

from stages import run


def make_figures(
    images: Path,
    masks: Path,
    judge_masks: Path,
    predictions: Path,
    figure: Path,
    *,
    samples: int,
    seed: int,
) -> None:
    """Draw `samples` random test samples (chosen by `seed`, not by hand)."""
    import numpy as np

    from pipeline.arrays import Group
    from pipeline.reporting import mask_figure

    total = Group(images).splits["test"]
    rows = np.sort(np.random.default_rng(seed).permutation(total)[:samples])
    sources = {"teacher": masks, "judge": judge_masks, "LSE": predictions / "lse.zarr"}
    shown = {t: Group(p).read("test", "masks")[rows] for t, p in sources.items()}
    pictures = Group(images).read("test", "images")[rows]
    classes = Group(masks).attributes["classes"]
    mask_figure(figure, pictures, shown, classes, [f"test {row}" for row in rows])


if __name__ == "__main__":
    run(make_figures)
