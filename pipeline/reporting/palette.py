"""Masks in the colors of their classes."""

import numpy as np

from pipeline.palette import COLORS, rgb

__all__ = ["COLORS", "colorize"]


def colorize(masks: np.ndarray, classes: list[str]) -> np.ndarray:
    """Masks [..., H, W] of class ids to RGB [..., H, W, 3] uint8."""
    return rgb(classes)[masks]
