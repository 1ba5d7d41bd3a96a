"""Photographs cut as the generator's training images were: the recipe of FFHQ.

Karras et al. 2019, "A Style-Based Generator Architecture for GANs", appendix A, and
`recreate_aligned_images` of ffhq-dataset: a square from the eyes and the corners of the mouth.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from pipeline.data.photo_files import Photo
from pipeline.runtime.errors import InputError

MIN_SIDE = 128  # px of the square in the photo: the resolution that photos are inverted at
FADED = 0.3  # of the side, beyond the photo's edge: where reflected pixels have lost all detail
BLUR = 0.02  # of the side: standard deviation of their blur
# Of four points that are a face, however it is turned: a length divided by the eyes' distance.
DOWN, MOUTH = (0.5, 2.5), (0.2, 2.0)  # from the eyes to the mouth; the mouth's width
SLANT = 0.6  # cosine of the angle from the eyes' line to the way down, at most

Points = Float[np.ndarray, "4 2"]  # left eye, right eye, left and right mouth corner, as one looks


@dataclass(frozen=True)
class Square:
    """A square in a photo, in px (x to the right, y down)."""

    center: tuple[float, float]
    half: tuple[float, float]  # from the center to the middle of the right edge

    @property
    def side(self) -> float:
        """Length of an edge, px."""
        return 2 * float(np.hypot(*self.half))

    @property
    def axes(self) -> Float[np.ndarray, "2 2"]:
        """Rows: half the square to the right, half the square down."""
        x, y = self.half
        return np.array([[x, y], [-y, x]], float)

    def to_photo(self, points: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Places in the square, (0, 0) its upper left and (1, 1) its lower right corner, as px."""
        return np.asarray(self.center) + (2 * points - 1) @ self.axes

    def from_photo(self, points: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """The reverse of `to_photo`."""
        return ((points - np.asarray(self.center)) @ np.linalg.inv(self.axes) + 1) / 2


def whole(photo: Photo) -> Square:
    """The whole of a square photo, which is aligned already; InputError if it is not square."""
    height, width, _ = photo.shape
    if width != height or width < MIN_SIDE:
        raise InputError(
            f"an aligned photo of {width}x{height} px",
            f"a square of {MIN_SIDE} px or more, cut as FFHQ's are",
            "leave --aligned out, so that the face is found",
        )
    return Square((width / 2, height / 2), (width / 2, 0.0))


def square_of(points: Points) -> Square:
    """The square that FFHQ cuts for eyes and mouth corners in px; InputError if they are no face.

    Eyes and mouth corners both named from the other side give the same square.
    """
    left, right, mouth = points[0], points[1], points[2:].mean(0)
    eyes, down, lips = right - left, mouth - (left + right) / 2, points[3] - points[2]
    if eyes[0] * down[1] < eyes[1] * down[0]:
        eyes, lips = -eyes, -lips
    _check_face(eyes, down, lips)
    across = eyes + np.array([down[1], -down[0]])
    across *= max(2 * np.hypot(*eyes), 1.8 * np.hypot(*down)) / np.hypot(*across)
    center = (left + right) / 2 + 0.1 * down
    found = Square((float(center[0]), float(center[1])), (float(across[0]), float(across[1])))
    if found.side < MIN_SIDE:
        raise InputError(
            f"a face whose square is {found.side:.0f} px wide",
            f"{MIN_SIDE} px or more",
            "take a larger photo of it",
        )
    return found


def _check_face(eyes: np.ndarray, down: np.ndarray, lips: np.ndarray) -> None:
    """InputError for vectors between the points that no face has."""
    unit = np.hypot(*eyes)
    lengths = np.hypot(*down), np.hypot(*lips)
    fits = unit > 0 and all(
        low <= length / unit <= high
        for length, (low, high) in zip(lengths, (DOWN, MOUTH), strict=True)
    )
    slanted = abs(eyes @ down) > SLANT * unit * lengths[0] or eyes @ lips <= 0
    if not fits or slanted:
        raise InputError(
            "four points that are no face",
            "the left eye, the right eye, the left and the right corner of the mouth, in px",
            "read the points' x and y off the photo again",
        )


def cut(photo: Photo, square: Square, size: int) -> UInt8[np.ndarray, "3 size size"]:
    """The square of a photo at `size` px; beyond the photo its reflection, blurred and faded."""
    factor = max(1, int(square.side / (2 * size)))  # antialiasing: whole pixels are averaged first
    small = np.asarray(Image.fromarray(photo).reduce(factor))
    places = square.to_photo(_centers(2 * size))
    rows, columns = np.moveaxis(places, -1, 0)[::-1] / factor - 0.5
    channels = [
        map_coordinates(small[..., i], (rows, columns), np.float32, order=1, mode="reflect")
        for i in range(3)
    ]
    fine = np.stack(channels).reshape(3, size, 2, size, 2)
    found = fine.mean((2, 4))
    inside = _inside(photo, square, size)
    if inside.min() < 0:
        found = _fade(found, inside)
    return found.round().clip(0, 255).astype(np.uint8)


def _centers(size: int) -> Float[np.ndarray, "size size 2"]:
    """The centers (x, y) of a square's pixels, of its side."""
    line = (np.arange(size) + 0.5) / size
    return np.stack(np.meshgrid(line, line), -1)


def _inside(photo: Photo, square: Square, size: int) -> Float[np.ndarray, "size size"]:
    """How far the square's pixels lie from the photo's nearest edge, of its side; < 0: beyond."""
    x, y = np.moveaxis(square.to_photo(_centers(size)), -1, 0)
    height, width, _ = photo.shape
    return np.minimum.reduce([x, width - x, y, height - y]) / square.side


def _fade(pixels: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Pixels [3, size, size], blurred towards the photo's edge and faded to their median beyond."""
    sigma = BLUR * pixels.shape[-1]
    blurred = gaussian_filter(pixels, (0, sigma, sigma))
    pixels = pixels + (blurred - pixels) * np.clip(1 - 3 * inside / FADED, 0, 1)
    middle = np.median(pixels, axis=(1, 2), keepdims=True)
    return pixels + (middle - pixels) * np.clip(-inside / FADED, 0, 1)


def paste(
    photo: Photo,
    square: Square,
    pixels: UInt8[np.ndarray, "3 size size"],
    share: Float[np.ndarray, "size size"],  # of `pixels` in the result, 0 to 1
) -> Photo:
    """A photo with pixels laid over a square of it; where their share is 0 nothing changes."""
    corners = square.to_photo(np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]]))
    height, width, _ = photo.shape
    (left, top), (right, bottom) = np.floor(corners.min(0)), np.ceil(corners.max(0))
    rows = slice(max(0, int(top)), min(height, int(bottom)))
    columns = slice(max(0, int(left)), min(width, int(right)))
    y, x = np.mgrid[rows, columns] + 0.5
    places = square.from_photo(np.stack([x, y], -1)) * share.shape[0] - 0.5
    at = places[..., 1], places[..., 0]
    weight = map_coordinates(share, at, np.float32, order=1, mode="constant")[..., None]
    layers = [map_coordinates(c, at, np.float32, order=1, mode="nearest") for c in pixels]
    before = photo[rows, columns].astype(np.float32)
    result = photo.copy()
    mixed = before + (np.stack(layers, -1) - before) * weight
    result[rows, columns] = mixed.round().clip(0, 255).astype(np.uint8)
    return result
