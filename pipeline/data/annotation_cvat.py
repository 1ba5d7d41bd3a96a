"""CVAT's own exports: `CVAT for images 1.1` (XML), and the zip of `Segmentation mask 1.1`.

https://docs.cvat.ai/docs/dataset_management/formats/
"""

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree
from zipfile import ZipFile

import numpy as np
from PIL import Image

from pipeline.data.annotation_shapes import (
    AnnotatedImage,
    checked_size,
    corners,
    ellipse,
    placed,
    polygon,
    runs,
)
from pipeline.data.mask_files import Mask
from pipeline.data.palette import UNLABELED
from pipeline.runtime.errors import InputError

ANNOTATIONS = "annotations.xml"  # in a zip of CVAT for images
LABELS, MASKS = "labelmap.txt", "SegmentationClass/"  # in a zip of masks
MAX_BYTES = 1 << 28  # of a zip's member, unpacked


def holds_xml(path: Path) -> bool:
    """Whether a zip is of CVAT for images: it holds the XML."""
    with ZipFile(path) as members:
        return ANNOTATIONS in members.namelist()


def read_xml(path: Path) -> Iterator[AnnotatedImage]:
    """(image's name, (height, width), its shapes by z_order) of each annotated image.

    From the XML, or the zip that holds it.
    """
    text = path.read_bytes()
    if path.suffix.lower() == ".zip":
        with ZipFile(path) as members:
            text = _member(members, ANNOTATIONS, path)
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"{path}, which is not XML ({error})", "XML", "export again") from error
    if root.tag != "annotations" or root.find("track") is not None:
        raise InputError(
            f"{path}, XML of another kind ({'tracks' if root.tag == 'annotations' else root.tag})",
            "the XML of CVAT for images 1.1",
            "export the task in this form",
        )
    for image in root.iter("image"):
        size = checked_size(image.get("height"), image.get("width"), path)
        drawn = [shape for shape in image if shape.tag != "tag"]  # of the whole image
        drawn.sort(key=lambda shape: int(shape.get("z_order", "0")))
        shapes = [(shape.attrib["label"], _shape(shape, size, path)) for shape in drawn]
        if shapes:
            yield image.attrib["name"], size, shapes


def _shape(shape: ElementTree.Element, size: tuple[int, int], path: Path) -> Mask:
    """The mask [height, width] of one element."""

    def number(name: str) -> float:
        return float(shape.get(name, "0"))

    if shape.tag == "polygon":
        pairs = shape.attrib["points"].split(";")
        return polygon(np.array([pair.split(",") for pair in pairs], float), size)
    if shape.tag == "box":
        ends = np.array([[number("xtl"), number("ytl")], [number("xbr"), number("ybr")]])
        return polygon(corners(ends, number("rotation")), size)
    if shape.tag == "ellipse":
        center = np.array([number("cx"), number("cy")])
        radii = np.array([number("rx"), number("ry")])
        return ellipse(center, radii, size, number("rotation"))
    if shape.tag == "mask":
        height, width = checked_size(shape.get("height"), shape.get("width"), path)
        counts = [int(count) for count in shape.attrib["rle"].split(",")]
        part = runs(counts, height * width).reshape(height, width)
        return placed(part, int(number("left")), int(number("top")), size)
    raise InputError(
        f"a {shape.tag} in {path}",
        "polygons, boxes, ellipses and masks, which have an area",
        "draw it as a polygon",
    )


def read_masks(path: Path, classes: Sequence[str]) -> Iterator[tuple[str, Mask]]:
    """(image's name, mask) of each mask in a zip of `Segmentation mask 1.1`."""
    with ZipFile(path) as members:
        names = [name for name in members.namelist() if "__MACOSX" not in name]
        masks = [name for name in names if name.startswith(MASKS) and name.endswith(".png")]
        if LABELS not in names or not masks:
            raise InputError(
                f"{path}, a zip that holds {', '.join(names[:5]) or 'nothing'}",
                f"CVAT's {ANNOTATIONS}, or {LABELS} beside masks in {MASKS}",
                "export in one of these forms, or unpack it here",
            )
        colors = _colors(_member(members, LABELS, path).decode("utf-8-sig"))
        for name in masks:
            image = Image.open(BytesIO(_member(members, name, path)))
            rgb = np.asarray(image.convert("RGB"))
            yield Path(name).stem, _by_label(rgb, colors, classes, f"{name} of {path}")


def _member(members: ZipFile, name: str, path: Path) -> bytes:
    """A file of a zip, unpacked; InputError if it would fill the memory."""
    if members.getinfo(name).file_size > MAX_BYTES:
        raise InputError(
            f"{name} of {path}, more than {MAX_BYTES >> 20} MiB unpacked",
            "annotations of exported samples",
            "export again, without other files",
        )
    return members.read(name)


def _colors(text: str) -> dict[str, tuple[int, ...]]:
    """{label: (red, green, blue)} of CVAT's labelmap.txt, whose lines are `label:r,g,b::`."""
    lines = [line.split(":") for line in text.splitlines() if line and not line.startswith("#")]
    return {line[0]: tuple(map(int, line[1].split(","))) for line in lines}


def _by_label(
    rgb: np.ndarray, colors: dict[str, tuple[int, ...]], classes: Sequence[str], what: str
) -> Mask:
    """Class ids [height, width]; a background that is no class is UNLABELED."""
    mask = np.full(rgb.shape[:2], UNLABELED, np.uint8)
    known = np.zeros(rgb.shape[:2], bool)
    for label, color in colors.items():
        where = (rgb == np.array(color, np.uint8)).all(-1)
        if where.any() and label not in classes and label != "background":
            raise InputError(
                f"class {label!r} in {what}",
                f"one of {', '.join(classes)}",
                "rename it there, or name the label space that has it",
            )
        known |= where
        if label in classes:
            mask[where] = list(classes).index(label)
    if not known.all():
        raise InputError(
            f"a color {tuple(rgb[~known][0].tolist())} in {what}",
            f"a color of {LABELS}",
            "export again",
        )
    return mask
