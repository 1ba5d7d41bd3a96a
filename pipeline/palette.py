"""One color per class, told apart by lightness as well as hue (for color-blind readers)."""

import colorsys
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

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


# Okabe and Ito's eight colors, made for color-blind readers, in the order of their contrast.
OTHERS = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
GOLDEN = 0.381966  # of a turn: hues that never repeat and soon fill the circle
LIGHTNESS = (0.35, 0.75, 0.55, 0.88, 0.25)  # in turn, so that neighbors in the list differ in it


def class_colors(classes: Sequence[str]) -> list[str]:
    """A color `#rrggbb` for each class, no two the same.

    A face class has its own. The others take, by their place in the list, Okabe and Ito's colors,
    then hues a golden angle apart in five lightnesses.
    """
    found = {c: COLORS[c] for c in classes if c in COLORS}
    free = (color for color in _others() if color not in found.values())
    return [found[c] if c in found else found.setdefault(c, next(free)) for c in classes]


def _others() -> Iterator[str]:
    yield from OTHERS
    for i in range(10_000):
        channels = colorsys.hls_to_rgb(i * GOLDEN % 1, LIGHTNESS[i % len(LIGHTNESS)], 0.65)
        yield "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)


def rgb(classes: Sequence[str]) -> UInt8[np.ndarray, "class 3"]:
    """The classes' colors."""
    table = [[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in class_colors(classes)]
    return np.array(table, np.uint8)
