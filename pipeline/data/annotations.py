"""Masks that people drew on exported samples, found again by the samples' names.

Indexed or colored PNGs, and the exports of COCO (polygons, RLE), LabelMe and Label Studio (brush,
polygon). A pixel that nobody labeled is UNLABELED; of shapes that overlap, the last one counts.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from pipeline.data.annotation_formats import Shape, reader
from pipeline.data.mask_files import Mask, read_ids
from pipeline.data.pixels import UNLABELED
from pipeline.runtime.errors import InputError

NAME = re.compile(
    r"(?P<study>[\w.]+)-(?P<split>[a-z]+)-(?P<row>\d+)-seed(?P<seed>\d+)-psi(?P<psi>[\d.]+)"
    r"-(?P<generator>[0-9a-f]{8})"
)


@dataclass(frozen=True)
class SampleName:
    """What tells a sample from all others; the file's name, and the PNG's metadata."""

    study: str
    split: str
    row: int
    seed: int
    truncation_psi: float
    generator: str  # hex digits of the checkpoint's sha256

    def __str__(self) -> str:
        where = f"{self.study}-{self.split}-{self.row:05d}-seed{self.seed}"
        return f"{where}-psi{self.truncation_psi:g}-{self.generator[:8]}"

    @classmethod
    def parse(cls, text: str) -> "SampleName":
        """Read a file's name, whatever a tool has put before or after it."""
        found = NAME.search(text.replace("%2F", "/").rpartition("/")[2])
        if found is None:
            raise InputError(
                f"an annotation of {text!r}, which is no exported sample",
                "a name as stages.export_samples gives: STUDY-pool-ROW-seedSEED-psiPSI-GENERATOR",
                "keep the images' names in the annotation tool",
            )
        numbers = int(found["row"]), int(found["seed"]), float(found["psi"].rstrip("."))
        return cls(
            found["study"],
            found["split"],
            *numbers,
            found["generator"],
        )


@dataclass(frozen=True)
class Pool:
    """The samples that annotations may be of, and the classes that they may name."""

    seeds: Int64[np.ndarray, " sample"]
    truncation_psi: float
    generator: str  # hex digits of the checkpoint's sha256
    classes: tuple[str, ...]
    size: int  # px of masks

    def row(self, name: SampleName) -> int:
        """The sample's row; InputError if it is another generator's, or of another draw."""
        wanted = f"-psi{self.truncation_psi:g}-{self.generator[:8]}"
        known = name.split == "pool" and 0 <= name.row < len(self.seeds)
        same = known and name.seed == self.seeds[name.row]
        if not (same and str(name).endswith(wanted)):
            seed = self.seeds[name.row] if known else "none"
            raise InputError(
                f"an annotation of {name}",
                f"a sample of the pool's {len(self.seeds)} (row {name.row}: seed {seed}) "
                f"with {wanted[1:]}",
                "export the samples of this study again, or name their annotations",
            )
        return name.row


def read_annotations(folder: str | Path, pool: Pool) -> dict[int, Mask]:
    """{row of the pool: mask} of all annotations in a folder, at the size of the pool's masks.

    Masks may be drawn at that size or at a multiple of it. An empty folder gives none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"no folder at {folder}", "annotations", "make it, or leave the default")
    found: dict[int, Mask] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in {".png", ".json"}):
        for name, mask in _masks(path, pool):
            row = pool.row(SampleName.parse(name))
            if row in found:
                raise InputError(
                    f"a second annotation of {name} in {path}", "one a sample", "remove one"
                )
            found[row] = _at_size(mask, pool.size, f"{path} of {name}")
            if (found[row] == UNLABELED).all():
                raise InputError(
                    f"{path} without a labeled pixel of {name}",
                    "at least one",
                    "label some, or remove the annotation",
                )
    return found


def _masks(path: Path, pool: Pool) -> Iterator[tuple[str, Mask]]:
    """(name of the sample, mask) of one file."""
    if path.suffix.lower() == ".png":
        if path.name.startswith("task-"):
            raise InputError(
                f"{path}, a PNG of Label Studio, which does not name its image",
                "Label Studio's JSON export, which has the brush as RLE",
                "export as JSON",
            )
        yield path.stem, read_ids(path, pool.classes)
        return
    try:
        value = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, which is not JSON ({error})", "JSON", "export again") from error
    for name, size, shapes in reader(path, value)(value, path):
        yield name, _paint(shapes, size, pool.classes, path)


def _paint(
    shapes: Sequence[Shape], size: tuple[int, int], classes: Sequence[str], path: Path
) -> Mask:
    """Shapes one over the other, on nothing."""
    mask = np.full(size, UNLABELED, np.uint8)
    for name, where in shapes:
        if name not in classes:
            raise InputError(
                f"class {name!r} in {path}",
                f"one of {', '.join(classes)}",
                "rename it there, or name the label space that has it",
            )
        if where.shape != size:
            raise InputError(
                f"a shape of {where.shape[1]}x{where.shape[0]} px in {path}",
                f"the image's {size[1]}x{size[0]} px",
                "export again",
            )
        mask[where.astype(bool)] = list(classes).index(name)
    return mask


def _at_size(mask: Mask, size: int, what: str) -> UInt8[np.ndarray, "size size"]:
    """Every k-th pixel, at the middle of k x k, of a mask k times as large."""
    height, width = mask.shape
    if height != width or height % size:
        raise InputError(
            f"{what} of {width}x{height} px",
            f"{size}x{size} px or a multiple",
            "annotate the images as exported, without resizing",
        )
    step = height // size
    return np.ascontiguousarray(mask[step // 2 :: step, step // 2 :: step])
