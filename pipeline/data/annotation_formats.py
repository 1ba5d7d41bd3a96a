"""Shapes from the JSON exports of COCO (polygons, RLE), LabelMe and Label Studio (brush, polygon).

A new format is one function that yields the annotated images of a file, and a line of `reader`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from pipeline.data.mask_files import Mask
from pipeline.runtime.errors import InputError

Shape = tuple[str, UInt8[np.ndarray, "height width"]]  # class, where it is
AnnotatedImage = tuple[
    str, tuple[int, int], list[Shape]
]  # sample's name, (height, width), its shapes


def reader(path: Path, value: object) -> Callable[[Any, Path], Iterator[AnnotatedImage]]:
    """Which tool exported a JSON value; InputError if none is known to."""
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


# COCO


def _coco(value: Mapping, path: Path) -> Iterator[AnnotatedImage]:
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


def _labelme(value: Mapping, path: Path) -> Iterator[AnnotatedImage]:
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


def _label_studio(value: Sequence, path: Path) -> Iterator[AnnotatedImage]:
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
