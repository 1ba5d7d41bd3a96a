"""Masks that people drew on exported samples, found again by the samples' names.

Indexed or colored PNGs, TIFFs and BMPs, and the exports of COCO, LabelMe, Label Studio and CVAT.
A pixel that nobody labeled is UNLABELED; of shapes that overlap, the last one counts.
"""

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from pipeline.data.annotation_cvat import holds_xml, read_masks, read_xml
from pipeline.data.annotation_formats import reader
from pipeline.data.annotation_shapes import AnnotatedImage, Reading, Shape
from pipeline.data.mask_files import Mask, read_ids
from pipeline.data.palette import UNLABELED
from pipeline.runtime.errors import InputError, reading

# Roboflow writes psi0-5 for psi0.5.
NAME = re.compile(
    r"(?P<study>[\w.]+)-(?P<split>[a-z]+)-(?P<row>\d+)-seed(?P<seed>\d+)"
    r"-psi(?P<psi>\d+(?:[.-]\d+)?)-(?P<generator>[0-9a-f]{8})"
)

ANNOTATOR = "annotator.txt"
MASKS = {".png", ".bmp", ".tif", ".tiff"}
FORMS = (
    "PNG, TIFF or BMP masks, JSON of COCO, LabelMe or Label Studio, or CVAT's XML or zip "
    "(docs/annotations.md)"
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
        numbers = int(found["row"]), int(found["seed"]), float(found["psi"].replace("-", "."))
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
    image_size: int  # px of exported images

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

    Masks may be drawn at that size or at a multiple of it. A folder that is empty but for READMEs
    gives none; InputError for any other file that cannot be read, or holds no annotation. Where
    people annotated an image twice, annotator.txt in the folder says whose annotation counts.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"no folder at {folder}", "annotations", "make it, or leave the default")
    asked = Reading(pool.image_size, _annotator(folder / ANNOTATOR))
    found: dict[int, Mask] = {}
    for path in _files(folder):
        for name, mask in _masks_of(path, pool.classes, asked):
            with reading(path, FORMS, "export again"):
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


def describe(found: Mapping[int, Mask], classes: Sequence[str], folder: str | Path) -> str:
    """One line: how many samples, labeled pixels of each class, from which files."""
    counts: Counter[int] = Counter()
    for mask in found.values():
        counts.update(mask.ravel().tolist())
    pixels = ", ".join(f"{name} {counts[i]}" for i, name in enumerate(classes) if counts[i])
    files = ", ".join(str(path.relative_to(folder)) for path in _files(Path(folder)))
    return f"{len(found)} annotated samples; labeled pixels: {pixels}; from {files}"


def _files(folder: Path) -> list[Path]:
    """The files of annotations, in order; InputError for one of a form that is not read."""
    ours = [
        path
        for path in sorted(folder.rglob("*"))
        if (path.is_symlink() or not path.is_dir())
        and not path.name.startswith(".")  # macOS: ._NAME, .DS_Store
        and path.name.lower() not in {"readme", "readme.md", "readme.txt"}
        and path != folder / ANNOTATOR
        and "__MACOSX" not in path.parts
    ]
    for path in ours:
        if path.suffix.lower() not in {*MASKS, ".json", ".xml", ".zip"}:
            raise InputError(
                f"{path}, a file that is not read", FORMS, "export it so, or remove it"
            )
    return ours


def _annotator(path: Path) -> str:
    """Whose annotation counts where an image has several: what a file says, "" without one."""
    if not path.is_file():
        return ""
    with reading(path, "an annotator's id or e-mail, or 'newest'", "write one line of text"):
        annotator = path.read_text("utf-8-sig").strip()
    if not annotator or "\n" in annotator:
        raise InputError(f"{path} without one line", "an annotator, or 'newest'", "write it there")
    return annotator


def _masks_of(path: Path, classes: Sequence[str], asked: Reading) -> list[tuple[str, Mask]]:
    """(name of the sample, mask) of all annotations of a file, at least one."""
    with reading(path, FORMS, "export again"):
        found = list(_masks(path, classes, asked))
    if not found:
        raise InputError(f"{path} without an annotation", FORMS, "annotate some, or remove it")
    return found


def _masks(path: Path, classes: Sequence[str], asked: Reading) -> Iterator[tuple[str, Mask]]:
    """(name of the sample, mask) of one file."""
    if path.suffix.lower() in MASKS:
        if path.name.startswith("task-"):
            raise InputError(
                f"{path}, a PNG of Label Studio, which does not name its image",
                "Label Studio's JSON export, which has the brush as RLE",
                "export as JSON",
            )
        yield path.stem, read_ids(path, classes)
        return
    if path.suffix.lower() == ".zip" and not holds_xml(path):
        yield from read_masks(path, classes)
        return
    for name, size, shapes in _shapes(path, asked):
        yield str(name), _paint(shapes, size, classes, path)


def _shapes(path: Path, asked: Reading) -> Iterator[AnnotatedImage]:
    """The annotated images of a file of shapes."""
    if path.suffix.lower() in {".xml", ".zip"}:
        return read_xml(path)
    try:
        value = json.loads(path.read_bytes().removeprefix(codecs.BOM_UTF8))  # UTF-8, 16 or 32
    except ValueError as error:
        raise InputError(f"{path}, which is not JSON ({error})", "JSON", "export again") from error
    return reader(path, value)(value, path, asked)


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
