"""Masks as PNG files of class ids, also when a program has changed their palette or mode."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image

from pipeline.data.palette import UNLABELED, rgb
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import atomic

UNLABELED_COLOR = (255, 0, 255)  # in palettes: every index that is no class
UNKNOWN = 256  # stands for a color that no class has
LEAVE = UNLABELED  # in an edit: keep the sample's own class

Mask = UInt8[np.ndarray, "height width"]


def read_mask(
    path: str | Path,
    classes: Sequence[str],
    size: int | None = None,  # px that it must have; None: any square
) -> UInt8[np.ndarray, "size size"]:
    """A square mask of class ids; InputError if a pixel has no label."""
    ids = read_ids(path, classes)
    if ids.shape[0] != ids.shape[1] or (size is not None and len(ids) != size):
        raise InputError(
            f"mask {path} of {ids.shape[1]}x{ids.shape[0]} px",
            "a square" if size is None else f"{size}x{size} px",
            "resize it without interpolation",
        )
    if (ids == UNLABELED).any():
        raise InputError(
            f"mask {path} with pixels that have no label (id {UNLABELED})",
            f"ids 0-{len(classes) - 1}",
            "label every pixel",
        )
    return ids


def read_patch(path: str | Path, classes: Sequence[str], shape: tuple[int, ...]) -> Mask:
    """A mask of the proportions of `shape`, in its size; LEAVE where it says nothing."""
    image = Image.fromarray(read_ids(path, classes))
    if image.width * shape[0] != image.height * shape[1]:
        raise InputError(
            f"{path} of {image.width}x{image.height} px",
            f"one shaped as the mask, {shape[1]}x{shape[0]} px",
            "crop it, or resize it without interpolation",
        )
    return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.NEAREST))


def write_mask(path: str | Path, ids: Mask, classes: Sequence[str]) -> None:
    """An indexed PNG in the colors of the figures' legend; other indices are UNLABELED_COLOR."""
    image, table = Image.fromarray(ids), np.full((256, 3), UNLABELED_COLOR, np.uint8)
    table[: len(classes)] = rgb(classes)
    image.putpalette(table.ravel().tolist())
    with atomic(Path(path)) as partial:
        image.save(partial, "PNG")


def read_ids(path: str | Path, classes: Sequence[str]) -> Mask:
    """Class ids of an image; UNLABELED where it has id 255, UNLABELED_COLOR, or is transparent.

    Gray values are ids; RGB is read by the classes' colors. Programs reorder the palettes of the
    files that they save, so an indexed PNG is read by color where its palette has the classes'
    colors; of another palette the indices are ids. InputError for any other file.
    """
    mode, ids, rgba = _open(path)
    if mode == "L":
        found = ids
    else:
        found = _by_color(rgba, classes)
        found = _by_index(ids, rgba, found, len(classes)) if mode == "P" else found
        found = np.where(rgba[..., 3] == 0, UNLABELED, found)
    if (found == UNKNOWN).any():
        raise _unknown_color(path, rgba[found == UNKNOWN][0], classes)
    wrong = found[(found >= len(classes)) & (found != UNLABELED)]
    if len(wrong):
        raise InputError(
            f"mask {path} with id {wrong[0]}",
            f"ids 0-{len(classes) - 1}, or {UNLABELED} for pixels without a label",
            "map the ids to the label space",
        )
    return found.astype(np.uint8)


def _open(path: str | Path) -> tuple[str, np.ndarray, UInt8[np.ndarray, "height width 4"]]:
    """Mode, values (of mode P: palette indices) and RGBA of a file."""
    if not Path(path).is_file():
        raise InputError(f"no file at {path}", "a PNG mask of class ids", "name an existing one")
    try:
        with Image.open(path) as file:
            pages = getattr(file, "n_frames", 1)
            file.load()
            found = file.mode, np.asarray(file), np.asarray(file.convert("RGBA"))
    except OSError as error:
        raise InputError(f"{path}, which is no image", "a PNG mask", "export it again") from error
    if pages > 1:
        raise InputError(f"{path} of {pages} pages", "one page", "export one file per mask")
    if file.mode not in {"L", "P", "RGB", "RGBA"}:
        raise InputError(f"{path} of mode {file.mode}", "an 8 bit PNG", "export it as one")
    return found


def _by_color(rgba: np.ndarray, classes: Sequence[str]) -> Integer[np.ndarray, "height width"]:
    """Class ids by color; UNLABELED, or UNKNOWN for a color that no class has."""
    codes = rgba[..., :3].astype(np.int64) @ (65536, 256, 1)
    found = np.full(codes.shape, UNKNOWN)
    colors = zip((*range(len(classes)), UNLABELED), (*rgb(classes), UNLABELED_COLOR), strict=True)
    for i, color in colors:
        found[codes == np.asarray(color, np.int64) @ (65536, 256, 1)] = i
    found[rgba[..., 3] == 0] = UNLABELED
    return found


def _by_index(
    ids: np.ndarray, rgba: np.ndarray, by_color: np.ndarray, num_classes: int
) -> Integer[np.ndarray, "height width"]:
    """Class ids of an indexed PNG: of its colors if some index shows another class's, or all are
    known, else its indices. An index that is an id, shown as the gray of it, is always the id.
    """
    gray = (rgba[..., :3] == ids[..., None]).all(-1) & (rgba[..., 3] > 0)
    found = np.where(gray & ((ids < num_classes) | (ids == UNLABELED)), ids, by_color)
    reordered = (found != ids) & (found != UNKNOWN) & (found != UNLABELED)
    return found if reordered.any() or not (found == UNKNOWN).any() else ids


def _unknown_color(path: str | Path, color: np.ndarray, classes: Sequence[str]) -> InputError:
    shown = zip(classes, rgb(classes), strict=True)
    known = ", ".join(f"{name} #{bytes(c).hex()}" for name, c in shown)
    return InputError(
        f"mask {path} with color #{bytes(color[:3]).hex()}",
        f"the classes' colors ({known}), or gray ids",
        "draw with the exported palette and without antialiasing",
    )
