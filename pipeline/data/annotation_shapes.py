"""Shapes that annotation tools store, as masks: the pixels whose centers lie in a shape.

Coordinates are (x, y) in pixels from the image's upper left corner; sizes are (height, width).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.data.mask_files import Mask
from pipeline.runtime.errors import InputError

Shape = tuple[str, Mask]  # class, where it is
# Sample's name, (height, width), its shapes.
AnnotatedImage = tuple[str, tuple[int, int], list[Shape]]

NEWEST = "newest"  # in place of an annotator: of several annotations, the one changed last


@dataclass(frozen=True)
class Reading:
    """What a reader of a tool's export is told."""

    image_size: int  # px of exported images, for files that do not say their images' size
    annotator: str = ""  # whose annotation counts where an image has several, or NEWEST


MAX_SIDE = 16_384  # px: a larger size is a damaged file's, and its mask would fill the memory


def checked_size(height: object, width: object, path: Path) -> tuple[int, int]:
    """(height, width) of an annotated image; InputError unless both are sides of an image."""
    try:
        size = int(str(height)), int(str(width))
    except ValueError:
        size = 0, 0
    if not all(0 < side <= MAX_SIDE for side in size):
        raise InputError(
            f"an image of {width}x{height} px in {path}",
            f"sides of 1 to {MAX_SIDE} px",
            "export again",
        )
    return size


def polygon(points: np.ndarray, size: tuple[int, int]) -> Mask:
    """The inside of a polygon of points [N, 2], by the even-odd rule."""
    inside = np.zeros(size, bool)
    y, x = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, 0), strict=True):
        rows = np.flatnonzero((y0 <= y) != (y1 <= y))
        if len(rows):
            crossing = x0 + (y[rows] - y0) * (x1 - x0) / (y1 - y0)
            inside[rows] ^= x > crossing[:, None]
    return inside.astype(np.uint8)


def corners(
    points: np.ndarray, degrees: float = 0.0, around: np.ndarray | None = None
) -> np.ndarray:
    """Corners [4, 2] of the box around points [N, 2], turned clockwise around its center.

    `around` names another point (x, y) to turn around.
    """
    (x0, y0), (x1, y1) = points.min(0), points.max(0)
    box = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float)
    pivot = np.array([x0 + x1, y0 + y1]) / 2 if around is None else around
    return (box - pivot) @ _turn(degrees).T + pivot


def ellipse(
    center: np.ndarray, radii: np.ndarray, size: tuple[int, int], degrees: float = 0.0
) -> Mask:
    """The inside of an ellipse with radii [2] (x, y) at a center [2], turned clockwise."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    offsets = np.stack([columns - center[0], rows - center[1]], -1) @ _turn(degrees)
    if min(radii) <= 0:
        return np.zeros(size, np.uint8)
    distances = ((offsets / radii) ** 2).sum(-1)
    return (distances <= 1).astype(np.uint8)


def placed(part: np.ndarray, left: int, top: int, size: tuple[int, int]) -> Mask:
    """A smaller mask [h, w] at its place in the image; InputError if it reaches out of it."""
    height, width = part.shape
    if left < 0 or top < 0 or top + height > size[0] or left + width > size[1]:
        raise InputError(
            f"a mask of {width}x{height} px at ({left}, {top})",
            f"a place within the image's {size[1]}x{size[0]} px",
            "export again",
        )
    whole = np.zeros(size, np.uint8)
    whole[top : top + height, left : left + width] = part != 0
    return whole


def runs(counts: Sequence[int], number: int) -> np.ndarray:
    """Values [number] of run lengths of 0, 1, 0, ...; InputError if they are of another number."""
    lengths = np.array(counts, np.int64)
    if (lengths < 0).any() or lengths.sum() != number:
        raise InputError(f"RLE of {lengths.sum()} pixels", f"{number}", "export again")
    return np.repeat((np.arange(len(lengths)) % 2).astype(np.uint8), lengths)


def _turn(degrees: float) -> np.ndarray:
    """The rotation [2, 2] of (x, y), clockwise on an image whose y points down."""
    angle = np.deg2rad(float(degrees))
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
