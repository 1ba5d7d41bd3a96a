"""Figure 5 of Xu & Zheng (CVPR 2021): edits by color, by a teacher and by linear extractors."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.arrays import Group
from pipeline.files import atomic
from pipeline.reporting.palette import COLORS, colorize

TITLES = {
    "color": "color editing",
    "teacher": "SIE (teacher)",
    "fewshot": "SIE (few-shot LSE)",
    "full": "SIE (LSE)",
}


def draw_study(pictures: Path, figure: Path, most: int) -> None:
    """Figure 5 from what edit_semantics wrote: the first case of each edit, at most so many."""
    group = Group(pictures)
    shown = one_case_an_edit(group.attributes["cases"], most)
    names = [f"cases/{n}" for n in ("images", "masks", "strokes", "targets")]
    names += [f"{m}/{n}" for m in group.attributes["methods"] for n in ("images", "masks")]
    editing_figure(
        figure,
        {name: group.read(*name.split("/"))[shown] for name in names},
        [group.attributes["cases"][i] for i in shown],
        group.attributes["methods"],
        group.attributes["classes"],
    )


def editing_figure(
    path: Path,
    arrays: Mapping[str, np.ndarray],  # {group/name: [case, ...]}, as edit_semantics writes them
    cases: Sequence[Sequence],  # edit, row, seed of each
    methods: Sequence[str],
    classes: list[str],
) -> None:
    """Draw a row an edit: original, strokes, target, then each method's image and judge's mask."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    columns = _columns(arrays, methods, classes)
    num, inch, legend = len(cases), 1.35, 0.62
    height = inch * num + 0.3 + legend
    figure, axes = plt.subplots(
        num, len(columns), figsize=(inch * len(columns) + 0.35, height), squeeze=False
    )
    for line, (edit, row, _), i in zip(axes, cases, range(num), strict=True):
        for axis, (title, pictures) in zip(line, columns, strict=True):
            axis.imshow(pictures[i], interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if i == 0:
                axis.set_title(title, fontsize=9)
        line[0].set_ylabel(f"{edit.replace('_', ' ')}\ntest {row}", fontsize=9)
    patches = [Patch(facecolor=COLORS[c], edgecolor="#888888", label=c) for c in classes]
    figure.legend(handles=patches, loc="lower center", ncols=15, fontsize=9, frameon=False)
    figure.subplots_adjust(
        left=0.035,
        right=0.998,
        top=1 - 0.3 / height,
        bottom=legend / height,
        wspace=0.03,
        hspace=0.03,
    )
    with atomic(path) as partial:
        figure.savefig(partial, dpi=110, format="png", metadata={"Software": None})
    plt.close(figure)


def _columns(
    arrays: Mapping[str, np.ndarray], methods: Sequence[str], classes: list[str]
) -> list[tuple[str, np.ndarray]]:
    """(title, pictures [case, H, W, 3]) from left to right."""

    def image(name: str) -> np.ndarray:
        return arrays[name].transpose(0, 2, 3, 1)

    found = [
        ("original", image("cases/images")),
        ("its mask", colorize(arrays["cases/masks"], classes)),
        ("color strokes", image("cases/strokes")),
        ("target mask", colorize(arrays["cases/targets"], classes)),
    ]
    for method in methods:
        found.append((TITLES.get(method, method), image(f"{method}/images")))
        found.append(("judge's mask", colorize(arrays[f"{method}/masks"], classes)))
    return found


def one_case_an_edit(cases: Sequence[Sequence], most: int) -> list[int]:
    """Indices of the first case of each edit, at most so many: the rule of the figure's rows."""
    first: dict[str, int] = {}
    for i, (edit, *_) in enumerate(cases):
        first.setdefault(edit, i)
    return list(first.values())[:most]
