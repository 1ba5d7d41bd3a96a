"""Target masks: read from indexed PNG files, or drawn by a teacher from truncated samples."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from pipeline.errors import InputError
from pipeline.generators.base import Generator
from pipeline.images import to_float, to_uint8
from pipeline.latents import sample_z
from pipeline.teachers import Teacher

BLOCK = 4_000_000  # the seeds after those of a study's four splits


def read_mask(
    path: str | Path,
    num_classes: int,
    size: int | None = None,  # px that it must have; None: any square
) -> UInt8[np.ndarray, "size size"]:
    """A mask from a PNG of one channel, whose pixel value (palette index) is the class id."""
    try:
        with Image.open(path) as file:
            mode, ids = file.mode, np.asarray(file)
    except (FileNotFoundError, OSError) as error:
        raise InputError(f"{path}, which is no image", "a PNG mask", "name a mask") from error
    if mode not in {"L", "P"}:
        raise InputError(
            f"mask {path} of mode {mode}",
            "one channel of class ids: an indexed (P) or gray (L) PNG",
            "export the mask with a palette, not in colors",
        )
    if ids.shape[0] != ids.shape[1] or (size is not None and len(ids) != size):
        raise InputError(
            f"mask {path} of {ids.shape[1]}x{ids.shape[0]} px",
            "a square" if size is None else f"{size}x{size} px",
            "resize it without interpolation",
        )
    if ids.max() >= num_classes:
        raise InputError(
            f"mask {path} with id {ids.max()}",
            f"ids 0-{num_classes - 1}",
            "map the palette to the label space first",
        )
    return ids.astype(np.uint8)


def read_masks(
    paths: Sequence[str | Path], num_classes: int, size: int | None = None
) -> UInt8[np.ndarray, "target size size"]:
    """Masks of one size, each from its own PNG."""
    masks: list[np.ndarray] = []
    for path in paths:
        masks.append(read_mask(path, num_classes, len(masks[0]) if masks else size))
    if not masks:
        raise InputError("no target", "at least one mask", "name a PNG mask, or a folder of them")
    return np.stack(masks)


def folder_masks(
    folder: str | Path, num_classes: int, size: int, count: int
) -> UInt8[np.ndarray, "target size size"]:
    """The first `count` masks `folder`/*.png, sorted by name."""
    paths = sorted(Path(folder).glob("*.png"))
    if len(paths) < count:
        raise InputError(
            f"{len(paths)} masks in {folder}",
            f"at least {count} *.png",
            "add masks or lower targets",
        )
    return read_masks(paths[:count], num_classes, size)


@torch.inference_mode()
def teacher_masks(
    generator: Generator, teacher: Teacher, size: int, count: int, seed: int, truncation_psi: float
) -> UInt8[np.ndarray, "target size size"]:
    """The teacher's masks of samples that belong to no split of a study, one seed each."""
    first = seed * 10_000_000 + BLOCK
    masks = []
    for row in range(count):
        z = torch.from_numpy(sample_z([first + row], generator.z_dim)).to(generator.device)
        images = to_uint8(generator.synthesis(generator.mapping(z, truncation_psi)), size)
        masks.append(teacher.label(to_float(images), size))
    return np.concatenate(masks)
