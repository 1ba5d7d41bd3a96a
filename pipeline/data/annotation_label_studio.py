"""Shapes from Label Studio's exports: JSON (tasks with annotations) and JSON-MIN (one row each)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from pipeline.data.annotation_shapes import (
    NEWEST,
    AnnotatedImage,
    Reading,
    Shape,
    checked_size,
    corners,
    ellipse,
    polygon,
)
from pipeline.runtime.errors import InputError

REGIONS = {"brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels"}
NO_REGIONS = {"choices", "textarea", "rating", "number", "relation", "taxonomy", "datetime"}
SAMPLE = re.compile(r"-pool-\d+-seed\d+-psi")


@dataclass(frozen=True)
class Annotation:
    """What one person labeled of one image."""

    task: object  # the task's id
    name: str  # of the image
    annotator: frozenset[str]  # how the person may be named: id, e-mail
    updated: str  # when it was last changed (ISO 8601), "" if the export does not say
    regions: Sequence[Mapping]


def read_tasks(value: Sequence, path: Path, asked: Reading) -> Iterator[AnnotatedImage]:
    """The annotated images of an export; `asked.annotator` chooses where an image has several."""
    by_name: dict[str, list[Annotation]] = {}
    for task in value:
        annotations = list(_annotations(task))
        if not annotations:
            raise InputError(
                f"task {task.get('id')} in {path} without a region",
                "a brush, polygon, rectangle or ellipse in each task",
                "annotate it, or export the annotated tasks only",
            )
        by_name.setdefault(_name(task), []).extend(annotations)
    for name, annotations in by_name.items():
        shapes, size = [], (0, 0)
        chosen = _choose(annotations, path, asked.annotator)
        for region in chosen.regions:
            if region.get("image_rotation"):
                raise InputError(
                    f"task {chosen.task} in {path}, whose image was turned",
                    "the image as exported",
                    "turn it back in Label Studio, and annotate it again",
                )
            size = checked_size(region["original_height"], region["original_width"], path)
            shapes.append(_shape(region, size, path))
        yield name, size, shapes


def _name(task: Mapping) -> str:
    """The image's name: whichever value of the task names a sample."""
    texts = task.get("data") or {k: v for k, v in task.items() if isinstance(v, str)}
    names = [str(task.get("file_upload")), *map(str, texts.values())]
    return next((name for name in names if SAMPLE.search(name)), names[0])


def _annotations(task: Mapping) -> Iterator[Annotation]:
    """The annotations of a task that have regions and were not cancelled."""
    if "annotations" not in task:  # JSON-MIN: {"label": [{a value and its image's size}, ...]}
        lists = (value for value in task.values() if isinstance(value, list))
        rows = [row for value in lists for row in value if isinstance(row, dict)]
        regions = [
            row | {"value": row, "type": kind} for row in rows for kind in REGIONS & row.keys()
        ]
        entries = [{**task, "result": regions, "completed_by": task.get("annotator")}]
    else:
        entries = [entry for entry in task["annotations"] if not entry.get("was_cancelled")]
    for entry in entries:
        regions = [r for r in entry.get("result", []) if r.get("type") not in NO_REGIONS]
        if any(region.get("type") in REGIONS for region in regions):
            updated = str(entry.get("updated_at") or entry.get("created_at") or "")
            people = _people(entry.get("completed_by"))
            yield Annotation(task.get("id"), _name(task), people, updated, regions)


def _people(value: object) -> frozenset[str]:
    """The names of an annotator, who is an id, an e-mail, or {"id": ..., "email": ...}."""
    values = [value.get("id"), value.get("email")] if isinstance(value, dict) else [value]
    return frozenset(str(one) for one in values if one is not None)


def _choose(annotations: Sequence[Annotation], path: Path, annotator: str) -> Annotation:
    """The only annotation of an image, or the one that was asked for."""
    if len(annotations) == 1:
        return annotations[0]
    if annotator == NEWEST and all(one.updated for one in annotations):
        return max(annotations, key=lambda one: one.updated)
    taken = [one for one in annotations if annotator in one.annotator]
    if len(taken) == 1:
        return taken[0]
    people = ", ".join("/".join(sorted(one.annotator)) or "?" for one in annotations)
    raise InputError(
        f"task {annotations[0].task} in {path} with {len(annotations)} annotations (by {people})",
        "one annotation per image" + (f", by {annotator}" if annotator else ""),
        f"write an annotator or {NEWEST!r} into annotator.txt of the annotations' folder",
    )


def _shape(result: Mapping, size: tuple[int, int], path: Path) -> Shape:
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
        rgba = decode_brush(value["rle"], 4 * size[0] * size[1]).reshape(*size, 4)
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


def decode_brush(values: Sequence[int], wanted: int) -> UInt8[np.ndarray, " value"]:
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
