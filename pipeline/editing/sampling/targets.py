"""Target masks: read from indexed PNG files, or drawn by a teacher from truncated samples."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from pipeline.data.images import to_float, to_uint8
from pipeline.data.mask_files import read_mask
from pipeline.generators.contract import Generator
from pipeline.generators.latents import sample_z
from pipeline.runtime.errors import InputError
from pipeline.teachers.registry import Teacher

BLOCK = 4_000_000  # the seeds after those of a study's four splits


def read_masks(
    paths: Sequence[str | Path], classes: Sequence[str], size: int | None = None
) -> UInt8[np.ndarray, "target size size"]:
    """Masks of one size, each from its own PNG."""
    masks: list[np.ndarray] = []
    for path in paths:
        masks.append(read_mask(path, classes, len(masks[0]) if masks else size))
    if not masks:
        raise InputError("no target", "at least one mask", "name a PNG mask, or a folder of them")
    return np.stack(masks)


def folder_masks(
    folder: str | Path, classes: Sequence[str], size: int, count: int
) -> UInt8[np.ndarray, "target size size"]:
    """The first `count` masks `folder`/*.png, sorted by name."""
    paths = sorted(Path(folder).glob("*.png"))
    if len(paths) < count:
        raise InputError(
            f"{len(paths)} masks in {folder}",
            f"at least {count} *.png",
            "add masks or lower targets",
        )
    return read_masks(paths[:count], classes, size)


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
