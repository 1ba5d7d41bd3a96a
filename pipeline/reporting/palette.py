"""One color per class, told apart by lightness as well as hue (for color-blind readers)."""

import numpy as np

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


def colorize(masks: np.ndarray, classes: list[str]) -> np.ndarray:
    """Masks [..., H, W] of class ids to RGB [..., H, W, 3] uint8."""
    table = [[int(COLORS[c][i : i + 2], 16) for i in (1, 3, 5)] for c in classes]
    return np.array(table, np.uint8)[masks]
