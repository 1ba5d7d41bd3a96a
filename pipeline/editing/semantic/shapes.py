"""Where an edit acts on a mask: boxes around classes, and shapes in fractions of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from pipeline.runtime.errors import InputError

STRAY = 0.02  # of a class's pixels on each side that its box may leave out: teachers sprinkle some
SMALL = 0.25  # a connected part below this share of the largest one is no part of its own

Mask = UInt8[np.ndarray, "height width"]
Region = Bool[np.ndarray, "height width"]
Points = Sequence[Sequence[float]]


class Inapplicable(InputError):
    """An edit that means nothing on this sample: it lacks a class, or nothing would change."""


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, edges at half-integers: x from `left`, y from `top` downwards."""

    left: float
    top: float
    width: float
    height: float

    @property
    def side(self) -> float:
        """The side of a square of the same area, px."""
        return (self.width * self.height) ** 0.5


@dataclass(frozen=True)
class Shape:
    """An ellipse (center and size) or a polygon (points) as fractions of a box, y downwards."""

    box: tuple[str, ...] = ()  # classes that it surrounds; none: the whole mask
    each: bool = False  # one shape for each connected part, as for the left and the right eye
    center: tuple[float, float] | None = None
    size: tuple[float, float] | None = None  # diameters
    points: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if bool(self.points) == bool(self.center and self.size):
            raise InputError(
                f"a shape with points {self.points}, center {self.center}, size {self.size}",
                "either points (a polygon), or center and size (an ellipse)",
                "correct the edit",
            )

    def region(self, mask: Mask, ids: Mapping[str, int]) -> Region:
        """Pixels whose centers lie inside."""
        found = np.zeros(mask.shape, bool)
        for box in boxes(mask, ids, self.box, self.each):
            found |= self._inside(*_fractions(mask.shape, box))
        return found

    def _inside(self, x: np.ndarray, y: np.ndarray) -> Region:
        if self.points:
            return _in_polygon(x, y, self.points)
        assert self.center is not None and self.size is not None, "neither polygon nor ellipse"
        (a, b), (width, height) = self.center, self.size
        return ((x - a) / width) ** 2 + ((y - b) / height) ** 2 <= 0.25


def boxes(
    mask: Mask, ids: Mapping[str, int], classes: Sequence[str], each: bool = False
) -> list[Box]:
    """The box around the pixels of `classes`, or one a connected part; no classes: the whole mask.

    A box leaves out up to STRAY of the rows' and the columns' pixels on each side, so that a
    stray pixel of a teacher does not move it.
    """
    if not classes:
        return [Box(-0.5, -0.5, mask.shape[1], mask.shape[0])]
    chosen = present(mask, ids, classes)
    if not each:
        return [_box(chosen)]
    parts, num = ndimage.label(chosen, np.ones((3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=num + 1)[1:]
    return [_box(parts == i) for i in 1 + np.flatnonzero(sizes >= SMALL * sizes.max())]


def _box(chosen: Region) -> Box:
    rows, columns = np.nonzero(chosen)
    (top, bottom), (left, right) = (_extent(values) for values in (rows, columns))
    return Box(left - 0.5, top - 0.5, right - left + 1, bottom - top + 1)


def _extent(values: np.ndarray) -> tuple[int, int]:
    """First and last of sorted values, up to STRAY of them left out at each end."""
    ordered, out = np.sort(values), int(STRAY * len(values))
    return int(ordered[out]), int(ordered[len(ordered) - 1 - out])


def _fractions(shape: tuple[int, ...], box: Box) -> tuple[np.ndarray, np.ndarray]:
    """x [1, W] and y [H, 1] of pixel centers, as fractions of a box."""
    x = (np.arange(shape[1])[None] - box.left) / box.width
    y = (np.arange(shape[0])[:, None] - box.top) / box.height
    return x, y


def _in_polygon(x: np.ndarray, y: np.ndarray, points: Points) -> Region:
    """Even-odd rule: a ray to the right crosses the outline an odd number of times."""
    inside = np.zeros(np.broadcast_shapes(x.shape, y.shape), bool)
    for (xa, ya), (xb, yb) in zip(points, [*points[1:], points[0]], strict=True):
        if ya != yb:
            crossing = xa + (y - ya) * (xb - xa) / (yb - ya)
            inside ^= ((ya <= y) != (yb <= y)) & (x < crossing)
    return inside


def among(mask: Mask, ids: Mapping[str, int], classes: Sequence[str]) -> Region:
    """Pixels of some classes; of no class in particular: all."""
    return np.isin(mask, [ids[c] for c in classes]) if classes else np.ones(mask.shape, bool)


def present(mask: Mask, ids: Mapping[str, int], classes: Sequence[str]) -> Region:
    """Pixels of some classes, of which there must be one."""
    found = among(mask, ids, classes)
    if not found.any():
        raise Inapplicable(
            f"a mask without {' or '.join(classes)}", "some of it", "choose another sample"
        )
    return found


def nearest(mask: Mask, source: Region) -> tuple[Float[np.ndarray, "height width"], Mask]:
    """Per pixel, the distance to the nearest pixel of `source`, px, and that one's class."""
    distance, (rows, columns) = ndimage.distance_transform_edt(~source, return_indices=True)
    return distance, mask[rows, columns]
