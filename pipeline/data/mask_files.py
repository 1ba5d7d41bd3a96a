"""Masks as PNG files of one channel, whose pixel value (palette index) is the class id."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pipeline.data.palette import rgb
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import atomic

LEAVE = 255  # in an edit: keep the sample's own class

Mask = UInt8[np.ndarray, "height width"]


def read_mask(
    path: str | Path,
    classes: Sequence[str],
    size: int | None = None,  # px that it must have; None: any square
) -> UInt8[np.ndarray, "size size"]:
    """A square mask of class ids."""
    ids = np.asarray(_open(path, classes))
    if ids.shape[0] != ids.shape[1] or (size is not None and len(ids) != size):
        raise InputError(
            f"mask {path} of {ids.shape[1]}x{ids.shape[0]} px",
            "a square" if size is None else f"{size}x{size} px",
            "resize it without interpolation",
        )
    return ids.astype(np.uint8)


def read_patch(path: str | Path, classes: Sequence[str], shape: tuple[int, ...]) -> Mask:
    """A mask of the proportions of `shape`, in its size; LEAVE where it says nothing."""
    image = _open(path, classes, LEAVE)
    if image.width * shape[0] != image.height * shape[1]:
        raise InputError(
            f"{path} of {image.width}x{image.height} px",
            f"one shaped as the mask, {shape[1]}x{shape[0]} px",
            "crop it, or resize it without interpolation",
        )
    return np.asarray(image.resize(shape[::-1], Image.Resampling.NEAREST))


def write_mask(path: Path, ids: Mask, classes: Sequence[str]) -> None:
    """An indexed PNG in the colors of the figures' legend."""
    image, colors = Image.fromarray(ids), rgb(classes)
    grays = [[i, i, i] for i in range(len(colors), 256)]
    image.putpalette([*colors.ravel().tolist(), *np.ravel(grays).tolist()])
    with atomic(path) as partial:
        image.save(partial, "PNG")


def _open(path: str | Path, classes: Sequence[str], *more: int) -> Image.Image:
    """An image of one channel of class ids, or of `more`; InputError for any other file."""
    if not Path(path).is_file():
        raise InputError(f"no file at {path}", "a PNG mask of class ids", "name an existing one")
    try:
        with Image.open(path) as image:
            image.load()
    except OSError as error:
        raise InputError(f"{path}, which is no image", "a PNG mask", "name a mask") from error
    if image.mode not in {"L", "P"}:
        raise InputError(
            f"mask {path} of mode {image.mode}",
            "one channel of class ids: an indexed (P) or gray (L) PNG",
            "export the mask with a palette, not in colors",
        )
    used = np.unique(np.asarray(image))
    if len(unknown := np.setdiff1d(used, [*range(len(classes)), *more])):
        raise InputError(
            f"mask {path} with id {unknown[0]}",
            " or ".join([f"ids 0-{len(classes) - 1}", *map(str, more)]),
            "map the palette to the label space first",
        )
    if image.mode == "P":
        _check_palette(path, image, classes, used[used < len(classes)])
    return image


def _check_palette(
    path: str | Path, image: Image.Image, classes: Sequence[str], used: UInt8[np.ndarray, " index"]
) -> None:
    """InputError if an index is shown in a color that is neither its class's nor the id's gray.

    Programs reorder the palettes of the files that they save; then the indices are no class ids.
    """
    palette = np.zeros((256, 3), np.uint8)
    given = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    palette[: len(given)] = given
    for i in used:
        wanted = rgb(classes)[i]
        if not (palette[i] == wanted).all() and not (palette[i] == i).all():
            raise InputError(
                f"mask {path} whose index {i} has color {_hex(palette[i])}",
                f"{_hex(wanted)}, that of {classes[i]}, or gray {_hex([i] * 3)}",
                "keep the order of the palette, or save a gray (L) PNG of class ids",
            )


def _hex(color: Iterable) -> str:
    return "#" + "".join(f"{int(value):02x}" for value in color)
