"""Masks in the colors of their classes."""

from collections.abc import Sequence

import numpy as np

from pipeline.data.palette import COLORS, class_colors, rgb

__all__ = ["COLORS", "class_colors", "colorize", "rgb"]


def colorize(masks: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Masks [..., H, W] of class ids to RGB [..., H, W, 3] uint8."""
    return rgb(classes)[masks]
