"""Photographs with the square of each that shows the face as the generator knows faces."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from pipeline.data.alignment import Points, Square, cut, square_of, whole
from pipeline.data.landmarks import load_faces
from pipeline.data.options import Alignment
from pipeline.data.photo_files import Photo, read_photo
from pipeline.runtime.errors import InputError

NUMBER = r"(-?\d+(?:\.\d+)?)"
POINT = re.compile(rf"{NUMBER},{NUMBER}")


@dataclass(frozen=True)
class Subject:
    """A photo and the square of it that is its face."""

    name: str  # the file's stem
    photo: Photo
    square: Square

    def aligned(self, size: int) -> UInt8[np.ndarray, "3 size size"]:
        """The face at `size` px, cut as FFHQ's are."""
        return cut(self.photo, self.square, size)


def read_subject(path: str | Path, alignment: Alignment, points: str | None = None) -> Subject:
    """A photo with its square: the whole of an aligned one, that of four points, or the found one.

    InputError names the file.
    """
    photo = read_photo(path)
    try:
        if alignment.aligned:
            square = whole(photo)
        elif points is not None:
            square = _of_points(points, photo)
        else:
            square = load_faces().find(photo)
    except InputError as error:
        raise InputError(f"{path}: {error.got}", error.wanted, error.remedy) from error
    return Subject(Path(path).stem, photo, square)


def check_photos(paths: Sequence[str | Path], alignment: Alignment) -> list[str | None]:
    """The points of each photo, or None; InputError for options that do not fit the photos."""
    stems = [Path(path).stem for path in paths]
    if twice := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise InputError(
            f"two photos called {twice[0]}", "photos of different names", "rename one of them"
        )
    if not alignment.points:
        return [None] * len(stems)
    if alignment.aligned or len(alignment.points) != len(stems):
        raise InputError(
            f"{len(alignment.points)} --points for {len(stems)} "
            + ("aligned photos" if alignment.aligned else "photos"),
            "one a photo, in the photos' order, or none",
            "name --points as often as there are photos, and no --aligned",
        )
    return list(alignment.points)


def _of_points(text: str, photo: Photo) -> Square:
    """The square of points "x,y x,y x,y x,y"; InputError if they are none, or off the photo."""
    parts = text.split()
    found = [match for part in parts if (match := POINT.fullmatch(part))]
    if len(parts) != 4 or len(found) != 4:
        raise InputError(
            f"points {text!r}",
            "four as x,y in px: left eye, right eye, left and right corner of the mouth",
            "write them as in --points '210,240 302,238 222,330 296,329'",
        )
    points: Points = np.array([[float(x) for x in match.groups()] for match in found])
    height, width, _ = photo.shape
    if (points < 0).any() or (points > (width, height)).any():
        raise InputError(
            f"points {text!r} of a photo of {width}x{height} px",
            "four in the photo",
            "read the points' x and y off the photo again",
        )
    return square_of(points)
