"""Shapes from the JSON exports of COCO and LabelMe; which tool exported a JSON file.

A new format is one function that yields the annotated images of a file, and a line of `reader`.
"""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.data.annotation_label_studio import read_tasks
from pipeline.data.annotation_shapes import (
    AnnotatedImage,
    Reading,
    checked_size,
    corners,
    ellipse,
    placed,
    polygon,
    runs,
)
from pipeline.data.mask_files import Mask
from pipeline.runtime.errors import InputError


def reader(path: Path, value: object) -> Callable[[Any, Path, Reading], Iterator[AnnotatedImage]]:
    """Which tool exported a JSON value; InputError if none is known to."""
    if isinstance(value, dict) and {"images", "annotations", "categories"} <= value.keys():
        return _coco
    if isinstance(value, dict) and "shapes" in value:
        return _labelme
    if isinstance(value, list) and all(isinstance(task, dict) for task in value):
        return read_tasks
    raise InputError(
        f"{path}, whose layout is unknown",
        "COCO (images, annotations, categories), LabelMe (shapes), or Label Studio (JSON, tasks)",
        "export in one of these",
    )


# COCO


def _coco(value: Mapping, path: Path, _: Reading) -> Iterator[AnnotatedImage]:
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


def _coco_shape(found: Any, size: tuple[int, int]) -> np.ndarray:
    """The shape of a segmentation: lists of corners, or an RLE."""
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


def _labelme(value: Mapping, path: Path, asked: Reading) -> Iterator[AnnotatedImage]:
    size = checked_size(
        value.get("imageHeight") or asked.image_size,
        value.get("imageWidth") or asked.image_size,
        path,
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
