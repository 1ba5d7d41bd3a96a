"""Line plots and confusion matrices, readable at the width of a README."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.runtime.files import atomic

# Okabe & Ito's colors, with a marker each, so that no line is told by color alone.
STYLES = (
    ("#0072b2", "o"),
    ("#d55e00", "s"),
    ("#009e73", "^"),
    ("#cc79a7", "D"),
    ("#e69f00", "v"),
    ("#56b4e9", "P"),
    ("#000000", "x"),
)


@dataclass(frozen=True)
class Line:
    """One line: x, y, and the half-width of its band or None."""

    x: Sequence[float]
    y: Sequence[float]
    band: Sequence[float] | None = None
    dashed: bool = False  # for numbers that are not ours, and for controls
    like: str | None = None  # name of a line whose color and marker it shares; None: its own


@dataclass(frozen=True)
class Panel:
    """One set of axes."""

    title: str
    x: str  # label with unit
    y: str
    lines: Mapping[str, Line]
    log_x: bool = False
    log_y: bool = False
    ticks: Sequence[float] | None = None  # of x; None: matplotlib's own


def line_figure(path: Path, panels: Sequence[Panel], one_legend: bool = False) -> None:
    """Draw the panels side by side, each with its own legend, or narrower with one legend below.

    One legend is for panels of the same lines.
    """
    plt = _pyplot()
    size = (3.3 * len(panels), 4.2) if one_legend else (5.2 * len(panels), 3.8)
    figure, axes = plt.subplots(1, len(panels), figsize=size, squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        names = list(panel.lines)
        for name, line in panel.lines.items():
            color, marker = STYLES[names.index(line.like or name) % len(STYLES)]
            style = {"linestyle": "--" if line.dashed else "-", "linewidth": 1.4}
            axis.plot(line.x, line.y, color=color, marker=marker, markersize=4, label=name, **style)
            if line.band is not None:
                y, band = np.asarray(line.y, float), np.asarray(line.band, float)
                axis.fill_between(line.x, y - band, y + band, color=color, alpha=0.15, linewidth=0)
        if panel.log_x:
            axis.set_xscale("log")
            ends = [x for line in panel.lines.values() for x in line.x]
            axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
            if ends and max(ends) < 10 * min(ends):  # else minor labels run into each other
                axis.xaxis.set_minor_formatter(lambda value, _: f"{value:g}")
                axis.tick_params(which="minor", labelsize=7)
            else:
                axis.xaxis.set_minor_formatter(lambda value, _: "")
        if panel.log_y:
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        if panel.ticks is not None:
            axis.set_xticks(panel.ticks, [f"{t:g}" for t in panel.ticks])
            axis.minorticks_off()
        axis.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
        axis.grid(color="#dddddd", linewidth=0.6)
        if not one_legend:
            axis.legend(fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.2 if one_legend else 0, 1, 1))
    if one_legend:
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="lower center", ncols=len(panels), frameon=False)
    _save(figure, path)


def confusion_figure(path: Path, shares: np.ndarray, classes: Sequence[str]) -> None:
    """A heat map of shares [target, predicted] in percent, every cell from 1 % up written out."""
    words = {(i, j): f"{100 * v:.0f}" for (i, j), v in np.ndenumerate(shares) if v >= 0.01}
    labels = "predicted", "teacher", "% of the class's pixels"
    _heat_figure(path, 100 * shares, 100, words, classes, labels)


def cosine_figure(path: Path, cosines: np.ndarray, classes: Sequence[str]) -> None:
    """A heat map of mean cosines [class, class], every cell written out, row maxima framed."""
    words = {at: f"{v:.2f}".replace("0.", ".") for at, v in np.ndenumerate(cosines) if v == v}
    labels = "class", "class", "mean cosine; framed: the largest of a row"
    largest = np.where(np.isnan(cosines), -np.inf, cosines).argmax(1)
    framed = [(row, int(k)) for row, k in enumerate(largest) if not np.isnan(cosines[row, k])]
    _heat_figure(path, cosines, float(np.nanmax(cosines)), words, classes, labels, framed)


def _heat_figure(
    path: Path,
    values: np.ndarray,
    top: float,  # of the color scale, which begins at 0
    words: Mapping[tuple[int, int], str],  # in cells
    classes: Sequence[str],
    labels: tuple[str, str, str],  # of x, y and the color bar
    framed: Sequence[tuple[int, int]] = (),
) -> None:
    plt = _pyplot()
    cell = min(0.42, 16 / len(classes))  # inches
    side, small = cell * len(classes) + 1.6, min(8, 19 * cell)  # points
    figure, axis = plt.subplots(figsize=(side + 0.8, side))
    picture = axis.imshow(values, cmap="cividis", vmin=0, vmax=top)
    axis.set_xticks(range(len(classes)), classes, rotation=60, ha="right", fontsize=small)
    axis.set_yticks(range(len(classes)), classes, fontsize=small)
    axis.set(xlabel=labels[0], ylabel=labels[1])
    for (row, column), word in words.items():
        color = "white" if values[row, column] < 0.55 * top else "black"
        axis.text(column, row, word, ha="center", va="center", fontsize=small - 1, color=color)
    for row, column in framed:
        frame = {"fill": False, "edgecolor": "#d55e00", "linewidth": 1.8}
        axis.add_patch(plt.Rectangle((column - 0.5, row - 0.5), 1, 1, **frame))
    figure.colorbar(picture, ax=axis, label=labels[2], shrink=0.8)
    figure.tight_layout()
    _save(figure, path)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _save(figure: Any, path: Path) -> None:
    with atomic(path) as partial:
        figure.savefig(partial, dpi=110, format="png", metadata={"Software": None})
    _pyplot().close(figure)
