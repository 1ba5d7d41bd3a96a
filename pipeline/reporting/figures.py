"""Figures of masks beside images, readable at the width of a README."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.arrays import Group
from pipeline.extractors.registry import EXTRACTORS
from pipeline.reporting.palette import class_colors, colorize, rgb
from pipeline.runtime.files import atomic

MANY = 24  # classes: a legend of more shows those that occur


def draw_extractors(
    images: Path,
    masks: Path,  # the teacher's
    judge_masks: Path,
    predictions: Path,  # folder of NAME.zarr.zip
    path: Path,
    samples: int,
    seed: int,  # draws them from the test split
) -> None:
    """The first picture of a study: test samples with the masks of teacher, judge, LSE and NSEs."""
    total, classes = Group(images).splits["test"], Group(masks).attributes["classes"]
    rows = np.sort(np.random.default_rng(seed).permutation(total)[:samples])
    sources = {"teacher": masks, "judge": judge_masks} | {
        form.title: predictions / f"{name}.zarr.zip"
        for name, form in EXTRACTORS.items()
        if not form.ablation
    }
    shown = {t: Group(p).read("test", "masks")[rows] for t, p in sources.items() if p.exists()}
    pictures = Group(images).read("test", "images")[rows]
    mask_figure(path, pictures, shown, classes, [f"test {row}" for row in rows])


def mask_figure(
    path: Path,
    images: np.ndarray,  # [N, 3, S, S] uint8
    masks: Mapping[str, np.ndarray],  # row title -> [N, S, S] class ids
    classes: list[str],
    titles: list[str],  # of the columns
) -> None:
    """Draw one column per sample: the image, then each of the masks; a legend below."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = _legend(classes, np.unique(np.concatenate([m.ravel() for m in masks.values()])))
    across = min(8, max(1, int((1.6 * len(images) + 0.5) / 0.95)))
    below = 0.35 + 0.2 * math.ceil(len(shown) / across)  # inches
    rows = {"image": images.transpose(0, 2, 3, 1)}
    rows |= {title: colorize(mask, classes) for title, mask in masks.items()}
    num = len(images)
    figure, axes = plt.subplots(
        len(rows), num, figsize=(1.6 * num + 0.5, 1.6 * len(rows) + below + 0.15), squeeze=False
    )
    for line, (title, pictures) in zip(axes, rows.items(), strict=True):
        for axis, picture, column in zip(line, pictures, titles, strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if line is axes[0]:
                axis.set_title(column, fontsize=8)
        line[0].set_ylabel(title, fontsize=10)
    patches = _patches(shown)
    figure.legend(handles=patches, loc="lower center", ncols=across, fontsize=8, frameon=False)
    figure.subplots_adjust(
        left=0.05,
        right=0.995,
        top=0.96,
        bottom=below / (1.6 * len(rows) + below + 0.15),
        wspace=0.03,
        hspace=0.03,
    )
    _write(figure, path)


def _patches(colors: Mapping[str, str]) -> list:
    """A legend's handle for each {class: color}."""
    from matplotlib.patches import Patch

    return [Patch(facecolor=color, edgecolor="#888888", label=c) for c, color in colors.items()]


def _write(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    with atomic(path) as partial:
        figure.savefig(partial, dpi=110, format="png", metadata={"Software": None})
    plt.close(figure)


def _legend(classes: Sequence[str], ids: np.ndarray | None) -> dict[str, str]:
    """{class: color} for a legend; of many classes, those that the figure shows (`ids`)."""
    colors = dict(zip(classes, class_colors(classes), strict=True))
    if len(classes) <= MANY or ids is None:
        return colors
    return {classes[i]: colors[classes[i]] for i in ids}


def _ids_of_colors(pictures: Sequence[np.ndarray], classes: Sequence[str]) -> np.ndarray:
    """Ids of the classes whose colors fill a hundredth of some picture."""
    colors = rgb(classes).astype(int) @ (65536, 256, 1)
    found: set[int] = set()
    for one in (picture for several in pictures for picture in several):
        value, count = np.unique(one.astype(int) @ (65536, 256, 1), return_counts=True)
        found |= set(value[count >= 0.01 * count.sum()].tolist())
    return np.flatnonzero(np.isin(colors, list(found)))


@dataclass(frozen=True)
class Column:
    """One column of a grid of pictures."""

    title: str
    pictures: np.ndarray  # [row, H, W, 3] uint8; of all columns alike in shape
    captions: Sequence[str] | None = None  # below each picture


def grid_figure(
    path: Path,
    columns: Sequence[Column],
    rows: Sequence[str],
    classes: Sequence[str],
    note: str = "",
) -> None:
    """Draw pictures side by side, a titled row each; a legend of the classes, or a note, below."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    pictures = [column.pictures for column in columns]
    shown = _legend(classes, _ids_of_colors(pictures, classes) if len(classes) > MANY else None)
    inch, words = 1.35, 0.2 * any(column.captions is not None for column in columns)
    tall = columns[0].pictures.shape[1] / columns[0].pictures.shape[2]
    left = 0.2 + 0.17 * max(row.count("\n") + 1 for row in rows)  # for the rows' titles
    width, step = inch * len(columns) + left, tall * inch + words
    lines = math.ceil(len(shown) / (width / 0.95))
    legend = 0.22 + 0.2 * lines if shown else 0.32
    top = 0.1 + 0.2 * max(column.title.count("\n") + 1 for column in columns)
    height = step * len(rows) + top + legend
    figure, axes = plt.subplots(len(rows), len(columns), figsize=(width, height), squeeze=False)
    for i, (line, row) in enumerate(zip(axes, rows, strict=True)):
        for axis, column in zip(line, columns, strict=True):
            axis.imshow(column.pictures[i], interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if i == 0:
                axis.set_title(column.title, fontsize=9)
            if column.captions is not None:
                axis.set_xlabel(column.captions[i], fontsize=9, labelpad=2)
        line[0].set_ylabel(row, fontsize=9)
    patches = _patches(shown)
    if patches:
        across = math.ceil(len(shown) / lines)
        figure.legend(handles=patches, loc="lower center", ncols=across, fontsize=9, frameon=False)
    figure.text(0.5, 0.08 / height, note, ha="center", fontsize=9)
    figure.subplots_adjust(
        left=left / width,
        right=0.998,
        top=1 - top / height,
        bottom=(legend + words) / height,
        wspace=0.03,
        hspace=0.03 + words / (tall * inch),
    )
    _write(figure, path)
