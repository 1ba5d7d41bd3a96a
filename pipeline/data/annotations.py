"""Masks that people drew on exported samples, found again by the samples' names.

Indexed or colored PNGs, and the exports of COCO (polygons, RLE), LabelMe and Label Studio (brush,
polygon). A pixel that nobody labeled is UNLABELED; of shapes that overlap, the last one counts.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from pipeline.data.pixels import UNLABELED
from pipeline.runtime.errors import InputError

UNLABELED_COLOR = (255, 0, 255)  # in exported palettes
NAME = re.compile(
    r"(?P<study>[\w.]+)-(?P<split>[a-z]+)-(?P<row>\d+)-seed(?P<seed>\d+)-psi(?P<psi>[\d.]+)"
    r"-(?P<generator>[0-9a-f]{8})"
)

Mask = UInt8[np.ndarray, "height width"]


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
    colors: UInt8[np.ndarray, "class 3"]  # of PNG palettes
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


Shape = tuple[str, UInt8[np.ndarray, "height width"]]  # class, where it is


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
        yield path.stem, read_png(path, pool)
        return
    try:
        value = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, which is not JSON ({error})", "JSON", "export again") from error
    for name, size, shapes in _reader(path, value)(value, path):
        yield name, _paint(shapes, size, pool.classes, path)


def _reader(path: Path, value: object) -> Callable:
    """Which tool exported a JSON value."""
    if isinstance(value, dict) and {"images", "annotations", "categories"} <= value.keys():
        return _coco
    if isinstance(value, dict) and "shapes" in value:
        return _labelme
    if isinstance(value, list) and all(isinstance(t, dict) and "annotations" in t for t in value):
        return _label_studio
    raise InputError(
        f"{path}, whose layout is unknown",
        "COCO (images, annotations, categories), LabelMe (shapes), or Label Studio (JSON, tasks)",
        "export in one of these",
    )


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


# PNG


def palette(colors: UInt8[np.ndarray, "class 3"]) -> list[int]:
    """256 RGB triples for an indexed PNG: the classes' colors, then UNLABELED_COLOR."""
    table = np.full((256, 3), UNLABELED_COLOR, np.uint8)
    table[: len(colors)] = colors
    return table.ravel().tolist()


def write_png(path: str | Path, mask: Mask, colors: UInt8[np.ndarray, "class 3"]) -> None:
    """A mask as an indexed PNG in the classes' colors."""
    image = Image.fromarray(mask, "P")
    image.putpalette(palette(colors))
    image.save(path, format="PNG")


def read_png(path: Path, pool: Pool) -> Mask:
    """A mask from a PNG: gray values are ids; of a palette or RGB, the classes' colors count.

    Tools re-order palettes, so an indexed PNG whose colors are all the classes' is read by them; if
    none is, its indices are ids. 255, UNLABELED_COLOR and transparent pixels have no label.
    """
    try:
        with Image.open(path) as file:
            file.load()
            mode, ids = file.mode, np.asarray(file)
            rgba = np.asarray(file.convert("RGBA"))
    except OSError as error:
        raise InputError(f"{path}, which is no image", "a PNG mask", "export it again") from error
    colored = _by_color(rgba, pool)
    if mode in {"RGB", "RGBA"}:
        if (colored == UNKNOWN).any():
            raise _unknown_color(path, rgba[colored == UNKNOWN][0], pool)
        return colored.astype(np.uint8)
    if mode == "P" and not (colored == UNKNOWN).any():
        return colored.astype(np.uint8)
    named = (colored != UNKNOWN) & (colored != UNLABELED)
    if mode == "P" and named.any() and len(np.unique(ids)) > 1 and (colored != ids)[named].any():
        raise _unknown_color(path, rgba[colored == UNKNOWN][0], pool)
    if mode not in {"L", "P"}:
        raise InputError(f"{path} of mode {mode}", "an 8 bit PNG", "export it as one")
    wrong = ids[(ids >= len(pool.classes)) & (ids != UNLABELED)]
    if len(wrong):
        raise InputError(
            f"mask {path} with id {wrong[0]}",
            f"ids 0-{len(pool.classes) - 1}, or {UNLABELED} for pixels without a label",
            "map the ids to the label space",
        )
    return ids.astype(np.uint8)


UNKNOWN = 256


def _by_color(rgba: np.ndarray, pool: Pool) -> np.ndarray:
    """Class ids [H, W] by color; UNLABELED, or UNKNOWN for a color that no class has."""
    codes = rgba[..., :3].astype(np.int64) @ (65536, 256, 1)
    found = np.full(codes.shape, UNKNOWN)
    for i, color in enumerate((*pool.colors, UNLABELED_COLOR)):
        found[codes == np.asarray(color, np.int64) @ (65536, 256, 1)] = (
            i if i < len(pool.colors) else UNLABELED
        )
    found[rgba[..., 3] == 0] = UNLABELED
    return found


def _unknown_color(path: Path, color: np.ndarray, pool: Pool) -> InputError:
    shown = zip(pool.classes, pool.colors, strict=True)
    known = ", ".join(f"{name} #{bytes(c).hex()}" for name, c in shown)
    return InputError(
        f"mask {path} with color #{bytes(color[:3]).hex()}",
        f"the classes' colors ({known}), or gray ids",
        "draw with the exported palette and without antialiasing",
    )


# COCO


def _coco(value: Mapping, path: Path) -> Iterator[tuple[str, tuple[int, int], list[Shape]]]:
    names = {c["id"]: c["name"] for c in value["categories"]}
    for image in value["images"]:
        size = image["height"], image["width"]
        shapes = []
        for one in (a for a in value["annotations"] if a["image_id"] == image["id"]):
            if one["category_id"] not in names:
                raise InputError(
                    f"category {one['category_id']} in {path}",
                    f"one of its categories, {', '.join(map(str, names))}",
                    "export again",
                )
            shapes.append((names[one["category_id"]], _coco_shape(one["segmentation"], size)))
        if shapes:
            yield image["file_name"], size, shapes


def _coco_shape(found: object, size: tuple[int, int]) -> np.ndarray:
    if isinstance(found, list):
        parts = [_polygon(np.reshape(part, (-1, 2)), size) for part in found]
        return np.any(parts, 0).astype(np.uint8)
    counts = found["counts"]
    return decode_coco(counts if isinstance(counts, list) else _coco_counts(counts), found["size"])


def decode_coco(counts: Sequence[int], size: Sequence[int]) -> Mask:
    """COCO's RLE: runs of 0, 1, 0, ... down the columns of [height, width]."""
    ones = np.arange(len(counts)) % 2
    flat = np.repeat(ones.astype(np.uint8), counts)
    if len(flat) != size[0] * size[1]:
        raise InputError(f"RLE of {len(flat)} pixels", f"{size[0] * size[1]}", "export again")
    return flat.reshape(size[1], size[0]).T


def _coco_counts(text: str) -> list[int]:
    """COCO's compressed counts: five bits a character, from the third on less that two before."""
    counts: list[int] = []
    value = shift = 0
    for code in (ord(c) - 48 for c in text):
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:  # more to come
            continue
        if code & 0x10:  # negative
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts


def _polygon(points: np.ndarray, size: tuple[int, int]) -> Mask:
    """Pixels whose centers lie inside a polygon of (x, y) in pixels from the corner (even-odd)."""
    inside = np.zeros(size, bool)
    y, x = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, 0), strict=True):
        rows = np.flatnonzero((y0 <= y) != (y1 <= y))
        if len(rows):
            crossing = x0 + (y[rows] - y0) * (x1 - x0) / (y1 - y0)
            inside[rows] ^= x > crossing[:, None]
    return inside.astype(np.uint8)


# LabelMe


def _labelme(value: Mapping, path: Path) -> Iterator[tuple[str, tuple[int, int], list[Shape]]]:
    size = value["imageHeight"], value["imageWidth"]
    yield (
        value["imagePath"],
        size,
        [(shape["label"], _labelme_shape(shape, size, path)) for shape in value["shapes"]],
    )


def _labelme_shape(shape: Mapping, size: tuple[int, int], path: Path) -> np.ndarray:
    points, kind = np.array(shape["points"], float), shape.get("shape_type", "polygon")
    if kind == "rectangle":
        (x0, y0), (x1, y1) = points
        points, kind = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]), "polygon"
    if kind != "polygon":
        raise InputError(f"a {kind} in {path}", "polygons and rectangles", "draw it as a polygon")
    return _polygon(points, size)


# Label Studio


def _label_studio(
    value: Sequence, path: Path
) -> Iterator[tuple[str, tuple[int, int], list[Shape]]]:
    for task in value:
        results = [r for a in task["annotations"] for r in a.get("result", [])]
        shapes, size = [], (0, 0)
        for result in results:
            size = result["original_height"], result["original_width"]
            shapes.append(_label_studio_shape(result, size, path))
        if shapes:
            name = task.get("file_upload") or next(iter(task.get("data", {"": ""}).values()))
            yield str(name), size, shapes


def _label_studio_shape(result: Mapping, size: tuple[int, int], path: Path) -> Shape:
    found, kind = result["value"], result.get("type")
    if kind == "brushlabels" and found.get("format", "rle") == "rle":
        rgba = decode_label_studio(found["rle"]).reshape(*size, 4)
        return found["brushlabels"][0], (rgba[..., 3] > 0).astype(np.uint8)
    if kind == "polygonlabels":
        points = np.array(found["points"], float) / 100 * (size[1], size[0])
        return found["polygonlabels"][0], _polygon(points, size)
    raise InputError(
        f"a result of type {kind!r} in {path}", "brushlabels or polygonlabels", "use one of these"
    )


def decode_label_studio(values: Sequence[int]) -> UInt8[np.ndarray, " value"]:
    """Label Studio's brush: bytes of RGBA, run-length encoded as thi.ng's rle-pack does.

    Bits: 32 number of values, 5 word size - 1, 4 x 4 sizes of run lengths - 1; then blocks of 1 bit
    (a run or single values), 2 bits (which size), the length - 1, and one word or as many words.
    """
    bits, at = np.unpackbits(np.array(values, np.uint8)), 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        if at > len(bits):
            raise InputError("brush RLE that ends early", "all of it", "export again")
        return int("".join(map(str, bits[at - count : at])), 2)

    number, word = take(32), take(5) + 1
    lengths = [take(4) + 1 for _ in range(4)]
    found: list[int] = []
    while len(found) < number:
        run = take(1)
        length = take(lengths[take(2)]) + 1
        found += [take(word)] * length if run else [take(word) for _ in range(length)]
    return np.array(found[:number], np.uint8)
