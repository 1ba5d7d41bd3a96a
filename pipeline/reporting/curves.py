"""Line plots and confusion matrices, readable at the width of a README."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.files import atomic

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
    dashed: bool = False  # for numbers that are not ours


@dataclass(frozen=True)
class Panel:
    """One set of axes."""

    title: str
    x: str  # label with unit
    y: str
    lines: Mapping[str, Line]
    log_x: bool = False
    ticks: Sequence[float] | None = None  # of x; None: matplotlib's own


def line_figure(path: Path, panels: Sequence[Panel]) -> None:
    """Draw the panels side by side, each with its own legend."""
    plt = _pyplot()
    figure, axes = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 3.8), squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        for index, (name, line) in enumerate(panel.lines.items()):
            color, marker = STYLES[index % len(STYLES)]
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
        if panel.ticks is not None:
            axis.set_xticks(panel.ticks, [f"{t:g}" for t in panel.ticks])
            axis.minorticks_off()
        axis.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
        axis.grid(color="#dddddd", linewidth=0.6)
        axis.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    _save(figure, path)


def confusion_figure(path: Path, shares: np.ndarray, classes: Sequence[str]) -> None:
    """A heat map of shares [target, predicted] in percent, every cell from 1 % up written out."""
    plt = _pyplot()
    cell = min(0.42, 16 / len(classes))  # inches
    side, small = cell * len(classes) + 1.6, min(8, 19 * cell)  # points
    figure, axis = plt.subplots(figsize=(side + 0.8, side))
    picture = axis.imshow(100 * shares, cmap="cividis", vmin=0, vmax=100)
    axis.set_xticks(range(len(classes)), classes, rotation=60, ha="right", fontsize=small)
    axis.set_yticks(range(len(classes)), classes, fontsize=small)
    axis.set(xlabel="predicted", ylabel="teacher")
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.01:
            color = "white" if share < 0.55 else "black"
            axis.text(
                column,
                row,
                f"{100 * share:.0f}",
                ha="center",
                va="center",
                fontsize=small - 1,
                color=color,
            )
    figure.colorbar(picture, ax=axis, label="% of the class's pixels", shrink=0.8)
    figure.tight_layout()
    _save(figure, path)


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _save(figure, path: Path) -> None:
    with atomic(path) as partial:
        figure.savefig(partial, dpi=110, format="png", metadata={"Software": None})
    _pyplot().close(figure)
