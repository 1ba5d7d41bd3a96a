"""One color per class, told apart by lightness as well as hue (for color-blind readers)."""

from collections.abc import Sequence

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


def rgb(classes: Sequence[str]) -> UInt8[np.ndarray, "class 3"]:
    """The classes' colors; of a class that has none, the gray of its id."""
    grays = (f"#{i:02x}{i:02x}{i:02x}" for i in range(len(classes)))
    colors = [COLORS.get(name, gray) for name, gray in zip(classes, grays, strict=True)]
    return np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in colors], np.uint8)
