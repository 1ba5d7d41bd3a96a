"""One color per class, told apart by lightness as well as hue (for color-blind readers)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

UNLABELED = 255  # in masks: a pixel that nobody labeled

# Neighbors in a face differ in lightness: skin light, hair dark, lips, eyes and brows apart.
COLORS = {
    "bg": "#1a1a1a",
    "skin": "#f2d5b8",
    "nose": "#e69f00",
    "eye_g": "#7f3c8d",
    "eye": "#0072b2",
    "l_eye": "#0072b2",
    "r_eye": "#56a5d8",
    "brow": "#8c510a",
    "l_brow": "#8c510a",
    "r_brow": "#bf812d",
    "ear": "#cc79a7",
    "l_ear": "#cc79a7",
    "r_ear": "#e3b1cd",
    "mouth": "#ffffff",
    "u_lip": "#d7191c",
    "l_lip": "#ff7f6e",
    "hair": "#4d6b3c",
    "hat": "#f0e442",
    "ear_r": "#00e5ff",
    "neck_l": "#b8860b",
    "neck": "#b39b7d",
    "cloth": "#5ab4ac",
}


LEVELS = np.arange(0, 256, 17)  # of red, green and blue, that other classes' colors are made of
TAKEN = ("#ff00ff", "#ffffff")  # no label, and paper
# Luma, blue and red against the rest: color-blind readers see all of the first, little of the last.
AXES = np.array([[0.45, 0.88, 0.17], [-0.3, -0.59, 0.89], [0.35, -0.29, -0.06]])


def class_colors(classes: Sequence[str]) -> list[str]:
    """A color `#rrggbb` for each class, no two the same.

    A face class has its own. Each of the others takes, in their order, the color that is farthest
    from all that are taken, where lightness counts most and red against green least.
    """
    found = {c: COLORS[c] for c in classes if c in COLORS}
    others = [c for c in classes if c not in found]
    found |= zip(others, _farthest(list(found.values()), len(others)), strict=True)
    return [found[c] for c in classes]


def _farthest(taken: Sequence[str], count: int) -> list[str]:
    """`count` colors, each as far as can be from those before it: greedy k-center."""
    grid = np.stack(np.meshgrid(LEVELS, LEVELS, LEVELS, indexing="ij"), -1).reshape(-1, 3)
    places = grid @ AXES.T
    distance = np.full(len(grid), np.inf)
    for place in _table([*TAKEN, *taken]) @ AXES.T:
        distance = np.minimum(distance, ((places - place) ** 2).sum(-1))
    picks = []
    for _ in range(count):
        picks.append(grid[distance.argmax()])
        distance = np.minimum(distance, ((places - places[distance.argmax()]) ** 2).sum(-1))
    return ["#" + bytes(pick.astype(np.uint8)).hex() for pick in picks]


def _table(colors: Sequence[str]) -> np.ndarray:
    return np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in colors])


def rgb(classes: Sequence[str]) -> UInt8[np.ndarray, "class 3"]:
    """The classes' colors."""
    return _table(class_colors(classes)).astype(np.uint8)
