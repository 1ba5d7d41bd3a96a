"""Shapes from the JSON exports of COCO, LabelMe and Label Studio.

A new format is one function that yields the annotated images of a file, and a line of `reader`.
"""

import base64
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pipeline.data.annotation_shapes import (
    AnnotatedImage,
    Shape,
    checked_size,
    corners,
    ellipse,
    placed,
    polygon,
    runs,
)
from pipeline.data.mask_files import Mask
from pipeline.runtime.errors import InputError


def reader(path: Path, value: object) -> Callable[[Any, Path, int], Iterator[AnnotatedImage]]:
    """Which tool exported a JSON value; InputError if none is known to."""
    if isinstance(value, dict) and {"images", "annotations", "categories"} <= value.keys():
        return _coco
    if isinstance(value, dict) and "shapes" in value:
        return _labelme
    if isinstance(value, list) and all(isinstance(task, dict) for task in value):
        return _label_studio
    raise InputError(
        f"{path}, whose layout is unknown",
        "COCO (images, annotations, categories), LabelMe (shapes), or Label Studio (JSON, tasks)",
        "export in one of these",
    )


# COCO


def _coco(value: Mapping, path: Path, _: int) -> Iterator[AnnotatedImage]:
    names = {str(c["id"]): c["name"] for c in value["categories"]}
    images = {str(image["id"]) for image in value["images"]}
    for one in value["annotations"]:
        if str(one["image_id"]) not in images:
            raise InputError(
                f"annotation {one.get('id')} of image {one['image_id']!r} in {path}",
                "one of the file's images",
                "export again, with the images",
            )
    for image in value["images"]:
        size = checked_size(image.get("height"), image.get("width"), path)
        shapes = []
        for one in (a for a in value["annotations"] if str(a["image_id"]) == str(image["id"])):
            if str(one["category_id"]) not in names:
                raise InputError(
                    f"category {one['category_id']} in {path}",
                    f"one of its categories, {', '.join(map(str, names))}",
                    "export again",
                )
            if not one.get("segmentation"):
                raise InputError(
                    f"annotation {one.get('id')} in {path}, a box without a shape",
                    "polygons or RLE",
                    "draw its outline, or remove it",
                )
            where = _coco_shape(one["segmentation"], size)
            shapes.append((names[str(one["category_id"])], where))
        if shapes:
            yield image["file_name"], size, shapes


def _coco_shape(found: object, size: tuple[int, int]) -> np.ndarray:
    if isinstance(found, list):
        found = found if isinstance(found[0], list) else [found]
        parts = [polygon(np.reshape(part, (-1, 2)), size) for part in found]
        return np.any(parts, 0).astype(np.uint8)
    counts = found["counts"]
    return decode_coco(counts if isinstance(counts, list) else _coco_counts(counts), found["size"])


def decode_coco(counts: Sequence[int], size: Sequence[int]) -> Mask:
    """COCO's RLE: runs of 0, 1, 0, ... down the columns of [height, width]."""
    height, width = size
    return runs(counts, height * width).reshape(width, height).T


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


# LabelMe


def _labelme(value: Mapping, path: Path, image_size: int) -> Iterator[AnnotatedImage]:
    size = checked_size(
        value.get("imageHeight") or image_size, value.get("imageWidth") or image_size, path
    )
    yield (
        value["imagePath"],
        size,
        [(shape["label"], _labelme_shape(shape, size, path)) for shape in value["shapes"]],
    )


def _labelme_shape(shape: Mapping, size: tuple[int, int], path: Path) -> np.ndarray:
    points, kind = np.array(shape["points"], float), shape.get("shape_type") or "polygon"
    if kind == "rectangle":
        return polygon(corners(points), size)  # saved with two corners, or with four
    if kind == "circle":  # its center, and a point on it
        radius = float(np.linalg.norm(points[1] - points[0]))
        return ellipse(points[0], np.array([radius, radius]), size)
    if kind == "mask":  # a PNG of the box between two corners
        drawn = Image.open(BytesIO(base64.b64decode(shape["mask"])))
        left, top = np.rint(points.min(0)).astype(int)
        return placed(np.asarray(drawn.convert("L")), int(left), int(top), size)
    if kind != "polygon":
        raise InputError(
            f"a {kind} in {path}",
            "polygons, rectangles, circles and masks, which have an area",
            "draw it as a polygon",
        )
    return polygon(points, size)


# Label Studio


REGIONS = {"brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels"}
NO_REGIONS = {"choices", "textarea", "rating", "number", "relation", "taxonomy", "datetime"}
SAMPLE = re.compile(r"-pool-\d+-seed\d+-psi")


def _label_studio(value: Sequence, path: Path, _: int) -> Iterator[AnnotatedImage]:
    for task in value:
        results = _results(task, path)
        shapes, size = [], (0, 0)
        for result in results:
            if result.get("image_rotation"):
                raise InputError(
                    f"task {task.get('id')} in {path}, whose image was turned",
                    "the image as exported",
                    "turn it back in Label Studio, and annotate it again",
                )
            size = checked_size(result["original_height"], result["original_width"], path)
            shapes.append(_label_studio_shape(result, size, path))
        if not shapes:
            raise InputError(
                f"task {task.get('id')} in {path} without a region",
                "a brush, polygon, rectangle or ellipse in each task",
                "annotate it, or export the annotated tasks only",
            )
        texts = task.get("data") or {k: v for k, v in task.items() if isinstance(v, str)}
        names = [str(task.get("file_upload")), *map(str, texts.values())]
        yield next((n for n in names if SAMPLE.search(n)), names[0]), size, shapes


def _results(task: Mapping, path: Path) -> list[Mapping]:
    """The regions of a task: of its only annotation that was not cancelled."""
    if "annotations" not in task:  # JSON-MIN: {"label": [{a value and its image's size}, ...]}
        lists = (value for value in task.values() if isinstance(value, list))
        regions = [r for value in lists for r in value if isinstance(r, dict)]
        return [r | {"value": r, "type": kind} for r in regions for kind in REGIONS & r.keys()]
    kept = [a for a in task["annotations"] if not a.get("was_cancelled")]
    kept = [a for a in kept if any(r.get("type") in REGIONS for r in a.get("result", []))]
    if len(kept) > 1:
        who = ", ".join(str(a.get("completed_by", "?")) for a in kept)
        raise InputError(
            f"task {task.get('id')} in {path} with {len(kept)} annotations (by {who})",
            "one annotation per task",
            "delete or cancel the others in Label Studio, and export again",
        )
    return [r for a in kept for r in a["result"] if r.get("type") not in NO_REGIONS]


def _label_studio_shape(result: Mapping, size: tuple[int, int], path: Path) -> Shape:
    value, kind = result["value"], result.get("type")
    if kind not in REGIONS:
        raise InputError(
            f"a result of type {kind!r} in {path}",
            "brushlabels, polygonlabels, rectanglelabels or ellipselabels",
            "use one of these",
        )
    name, scale = value[kind][0], np.array([size[1], size[0]]) / 100  # values are percentages
    if kind == "brushlabels":
        if value.get("format", "rle") != "rle":
            raise InputError(f"a brush as {value['format']} in {path}", "as rle", "export as JSON")
        rgba = decode_label_studio(value["rle"], 4 * size[0] * size[1]).reshape(*size, 4)
        return name, (rgba[..., 3] > 0).astype(np.uint8)
    if kind == "polygonlabels":
        return name, polygon(np.array(value["points"], float) * scale, size)
    place = np.array([value["x"], value["y"]], float) * scale
    degrees = value.get("rotation") or 0
    if kind == "rectanglelabels":  # it turns around its upper left corner
        far = place + np.array([value["width"], value["height"]], float) * scale
        return name, polygon(corners(np.stack([place, far]), degrees, place), size)
    radii = np.array([value["radiusX"], value["radiusY"]], float) * scale
    return name, ellipse(place, radii, size, degrees)


def decode_label_studio(values: Sequence[int], wanted: int) -> UInt8[np.ndarray, " value"]:
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
    if number != wanted:
        raise InputError(f"brush RLE of {number} values", f"{wanted}", "export again")
    found: list[int] = []
    while len(found) < number:
        run = take(1)
        length = take(lengths[take(2)]) + 1
        found += [take(word)] * length if run else [take(word) for _ in range(length)]
    return np.array(found[:number], np.uint8)
