"""One color per class, told apart by lightness as well as hue (for color-blind readers)."""

from collections.abc import Sequence

import numpy as np

from pipeline.editing.color import lab

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
# Color-blind readers see little of the red-green axis, all of the lightness.
WEIGHTS = (1.5, 0.5, 1.0)  # of CIELAB's L*, a*, b*


def class_colors(classes: Sequence[str]) -> list[str]:
    """A color `#rrggbb` for each class, no two the same.

    A face class has its own. Each of the others takes, in their order, the color that is farthest
    from all that are taken, in a CIELAB that counts lightness most and red against green least.
    """
    found = {c: COLORS[c] for c in classes if c in COLORS}
    others = [c for c in classes if c not in found]
    if others:
        found |= zip(others, _farthest((*TAKEN, *found.values()), len(others)), strict=True)
    return [found[c] for c in classes]


def _farthest(taken: Sequence[str], count: int) -> list[str]:
    """`count` colors, each as far as can be from those before it: greedy k-center."""
    grid = np.stack(np.meshgrid(LEVELS, LEVELS, LEVELS, indexing="ij"), -1).reshape(-1, 3)
    places = _lab(grid) * WEIGHTS
    distance = np.full(len(grid), np.inf)
    for place in _lab(_rgb(taken)) * WEIGHTS:
        distance = np.minimum(distance, ((places - place) ** 2).sum(-1))
    picks = []
    for _ in range(count):
        picks.append(grid[distance.argmax()])
        distance = np.minimum(distance, ((places - places[distance.argmax()]) ** 2).sum(-1))
    return ["#" + bytes(pick.astype(np.uint8)).hex() for pick in picks]


def _lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB [color, 3] of sRGB [color, 3] in 0-255."""
    return lab(rgb.astype(np.uint8)[:, :, None, None])[:, :, 0, 0]


def _rgb(colors: Sequence[str]) -> np.ndarray:
    table = [[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in colors]
    return np.array(table, np.uint8)


def colorize(masks: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Masks [..., H, W] of class ids to RGB [..., H, W, 3] uint8."""
    return rgb_colors(classes)[masks]


def rgb_colors(classes: Sequence[str]) -> np.ndarray:
    """The classes' colors [class, 3] uint8."""
    return _rgb(class_colors(classes))
