"""Edits as data: what a user paints on a sample's own mask (Xu & Zheng, CVPR 2021, appendix G).

An edit is a JSON object of steps; lengths are fractions of a box around some classes, so one edit
fits faces of any place and size, and masks of any resolution. A PNG of class ids is an edit, too.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from pipeline.errors import InputError, choose
from pipeline.files import read_json, sha256

LEAVE = 255  # in a PNG: keep the sample's own class
STRAY = 0.02  # of a class's pixels on each side that its box may leave out: teachers sprinkle some
TRACE = 0.001  # of a mask: a sample with fewer pixels of a class is one without it
CLASS_FIELDS = {"to", "classes", "over", "box"}
SMALL = 0.25  # a connected part below this share of the largest one is no part of its own

Mask = UInt8[np.ndarray, "height width"]
Region = Bool[np.ndarray, "height width"]
Points = Sequence[Sequence[float]]


class Inapplicable(InputError):
    """An edit that means nothing on this sample: it lacks a class, or nothing would change."""


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, edges at half-integers: x from `left`, y from `top` downwards."""

    left: float
    top: float
    width: float
    height: float

    @property
    def side(self) -> float:
        """The side of a square of the same area, px."""
        return (self.width * self.height) ** 0.5


@dataclass(frozen=True)
class Shape:
    """An ellipse (center and size) or a polygon (points) as fractions of a box, y downwards."""

    box: tuple[str, ...] = ()  # classes that it surrounds; none: the whole mask
    each: bool = False  # one shape for each connected part, as for the left and the right eye
    center: tuple[float, float] | None = None
    size: tuple[float, float] | None = None  # diameters
    points: tuple[tuple[float, float], ...] = ()

    def __post_init__(self):
        if bool(self.points) == bool(self.center and self.size):
            raise InputError(
                f"a shape with points {self.points}, center {self.center}, size {self.size}",
                "either points (a polygon), or center and size (an ellipse)",
                "correct the edit",
            )

    def region(self, mask: Mask, ids: Mapping[str, int]) -> Region:
        """Pixels whose centers lie inside."""
        found = np.zeros(mask.shape, bool)
        for box in boxes(mask, ids, self.box, self.each):
            found |= self._inside(*_fractions(mask.shape, box))
        return found

    def _inside(self, x: np.ndarray, y: np.ndarray) -> Region:
        if self.points:
            return _in_polygon(x, y, self.points)
        (a, b), (width, height) = self.center, self.size
        return ((x - a) / width) ** 2 + ((y - b) / height) ** 2 <= 0.25


@dataclass(frozen=True)
class Paint:
    """Pixels of a shape become `to`."""

    to: str
    shape: Shape
    over: tuple[str, ...] = ()  # only where the mask shows these; none: anywhere

    def apply(self, mask: Mask, ids: Mapping[str, int]) -> Mask:
        where = self.shape.region(mask, ids) & _among(mask, ids, self.over)
        return np.where(where, np.uint8(ids[self.to]), mask)


@dataclass(frozen=True)
class Replace:
    """Pixels of some classes become `to`; of several, each becomes the nearest one's class."""

    classes: tuple[str, ...]
    to: tuple[str, ...]
    where: Shape | None = None

    def apply(self, mask: Mask, ids: Mapping[str, int]) -> Mask:
        chosen = _present(mask, ids, self.classes)
        if self.where is not None:
            chosen &= self.where.region(mask, ids)
        if len(self.to) == 1:
            return np.where(chosen, np.uint8(ids[self.to[0]]), mask)
        source = _present(mask, ids, self.to)
        return np.where(chosen, _nearest(mask, source)[1], mask)


@dataclass(frozen=True)
class Grow:
    """`over` classes within a distance of some classes become the nearest of these.

    To shrink a class is to grow its neighbors over it.
    """

    classes: tuple[str, ...]
    by: float  # as a fraction of the side of a square as large as the box of `box`
    over: tuple[str, ...]
    box: tuple[str, ...] = ()  # none: the whole mask

    def apply(self, mask: Mask, ids: Mapping[str, int]) -> Mask:
        source = _present(mask, ids, self.classes)
        (box,) = boxes(mask, ids, self.box)
        distance, nearest = _nearest(mask, source)
        near = distance - 0.5 <= self.by * box.side  # from the edge of the nearest pixel
        return np.where(near & _among(mask, ids, self.over), nearest, mask)


@dataclass(frozen=True)
class Patch:
    """A PNG of class ids over the whole mask; 255 leaves the sample's own class."""

    path: str

    def apply(self, mask: Mask, ids: Mapping[str, int]) -> Mask:
        ours = _read_png(self.path, len(ids), mask.shape)
        return np.where(ours == LEAVE, mask, ours)


OPERATIONS = {"paint": Paint, "replace": Replace, "grow": Grow, "png": Patch}


@dataclass(frozen=True)
class Edit:
    """A named edit: its steps in order, and the areas that a study takes it at."""

    name: str
    steps: tuple[Paint | Replace | Grow | Patch, ...]
    area: tuple[float, float] = (0.0, 1.0)  # of the region, as shares of the mask
    without: tuple[str, ...] = ()  # classes that the sample must lack
    needs: tuple[tuple[str, float], ...] = ()  # classes that it must show, as least shares
    content: str = ""  # what it was read from, for fingerprints


@dataclass(frozen=True)
class Target:
    """What an edit asks of a sample."""

    mask: Mask  # the sample's own mask with the edit fused in
    region: Region  # where it differs from the sample's own


def apply_edit(edit: Edit, mask: Mask, classes: Sequence[str]) -> Target:
    """The target mask of a sample; Inapplicable if the edit means nothing there."""
    ids = {name: i for i, name in enumerate(classes)}
    check_edit(edit, classes)
    _check_sample(edit, mask, ids)
    edited = mask
    for step in edit.steps:
        try:
            edited = step.apply(edited, ids)
        except Inapplicable as error:
            raise Inapplicable(
                f"edit {edit.name} on {error.got}", error.wanted, error.remedy
            ) from error
    region = edited != mask
    share = float(region.mean())
    if not region.any() or not edit.area[0] <= share <= edit.area[1]:
        raise Inapplicable(
            f"edit {edit.name}, which changes {share:.2%} of this mask",
            f"more than 0, and {edit.area[0]:.2%} to {edit.area[1]:.2%}",
            "choose another sample, or change the edit's steps or area",
        )
    return Target(edited.astype(np.uint8), region)


def _check_sample(edit: Edit, mask: Mask, ids: Mapping[str, int]) -> None:
    """Inapplicable if the sample shows what it must lack, or too little of what it must show."""
    bounds = [(c, 0.0, TRACE) for c in edit.without] + [(c, low, 1.0) for c, low in edit.needs]
    for name, low, high in bounds:
        share = float((mask == ids[name]).mean())
        if not low <= share <= high:
            raise Inapplicable(
                f"edit {edit.name} on a mask with {share:.2%} of {name}",
                f"{low:.1%} to {high:.1%}",
                "choose another sample",
            )


def check_edit(edit: Edit, classes: Sequence[str]) -> None:
    """InputError if the edit names a class that the masks do not have."""
    named = [*edit.without, *dict(edit.needs), *(n for step in edit.steps for n in _names(step))]
    for name in named:
        if name not in classes:
            raise InputError(
                f"edit {edit.name} with class {name!r}",
                f"classes {', '.join(classes)}",
                "name a class of these masks",
            )


def _names(part: Any) -> Iterator[str]:
    """Names of classes in a step and in its shape."""
    for field in fields(part):
        value = getattr(part, field.name)
        if field.name in CLASS_FIELDS:
            yield from (value,) if isinstance(value, str) else value
        elif is_dataclass(value):
            yield from _names(value)


def boxes(
    mask: Mask, ids: Mapping[str, int], classes: Sequence[str], each: bool = False
) -> list[Box]:
    """The box around the pixels of `classes`, or one a connected part; no classes: the whole mask.

    A box leaves out up to STRAY of the rows' and the columns' pixels on each side, so that a
    stray pixel of a teacher does not move it.
    """
    if not classes:
        return [Box(-0.5, -0.5, mask.shape[1], mask.shape[0])]
    chosen = _present(mask, ids, classes)
    if not each:
        return [_box(chosen)]
    parts, num = ndimage.label(chosen, np.ones((3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=num + 1)[1:]
    return [_box(parts == i) for i in 1 + np.flatnonzero(sizes >= SMALL * sizes.max())]


def _box(chosen: Region) -> Box:
    rows, columns = np.nonzero(chosen)
    (top, bottom), (left, right) = (_extent(values) for values in (rows, columns))
    return Box(left - 0.5, top - 0.5, right - left + 1, bottom - top + 1)


def _extent(values: np.ndarray) -> tuple[int, int]:
    """First and last of sorted values, up to STRAY of them left out at each end."""
    ordered, out = np.sort(values), int(STRAY * len(values))
    return int(ordered[out]), int(ordered[len(ordered) - 1 - out])


def _fractions(shape: tuple[int, ...], box: Box) -> tuple[np.ndarray, np.ndarray]:
    """x [1, W] and y [H, 1] of pixel centers, as fractions of a box."""
    x = (np.arange(shape[1])[None] - box.left) / box.width
    y = (np.arange(shape[0])[:, None] - box.top) / box.height
    return x, y


def _in_polygon(x: np.ndarray, y: np.ndarray, points: Points) -> Region:
    """Even-odd rule: a ray to the right crosses the outline an odd number of times."""
    inside = np.zeros(np.broadcast_shapes(x.shape, y.shape), bool)
    for (xa, ya), (xb, yb) in zip(points, [*points[1:], points[0]], strict=True):
        if ya != yb:
            crossing = xa + (y - ya) * (xb - xa) / (yb - ya)
            inside ^= ((ya <= y) != (yb <= y)) & (x < crossing)
    return inside


def _among(mask: Mask, ids: Mapping[str, int], classes: Sequence[str]) -> Region:
    return np.isin(mask, [ids[c] for c in classes]) if classes else np.ones(mask.shape, bool)


def _present(mask: Mask, ids: Mapping[str, int], classes: Sequence[str]) -> Region:
    """Pixels of some classes, of which there must be one."""
    found = _among(mask, ids, classes)
    if not found.any():
        raise Inapplicable(
            f"a mask without {' or '.join(classes)}", "some of it", "choose another sample"
        )
    return found


def _nearest(mask: Mask, source: Region) -> tuple[Float[np.ndarray, "height width"], Mask]:
    """Per pixel, the distance to the nearest pixel of `source`, px, and that one's class."""
    distance, (rows, columns) = ndimage.distance_transform_edt(~source, return_indices=True)
    return distance, mask[rows, columns]


def _read_png(path: str, num_classes: int, shape: tuple[int, ...]) -> Mask:
    from PIL import Image

    with Image.open(path) as image:
        image.load()
    if image.mode not in {"L", "P"} or image.width * shape[0] != image.height * shape[1]:
        raise InputError(
            f"{path} of mode {image.mode} and size {image.size}",
            f"one channel of class ids (mode L or P), shaped as the mask {shape[::-1]}",
            "export it as an indexed PNG",
        )
    values = np.asarray(image.resize(shape[::-1], Image.Resampling.NEAREST))
    if len(unknown := np.setdiff1d(values, [*range(num_classes), LEAVE])):
        raise InputError(
            f"{path} with id {unknown[0]}",
            f"0-{num_classes - 1}, or {LEAVE} to leave a pixel",
            "paint class ids",
        )
    return values


def read_edit(path: str | Path) -> Edit:
    """Read an edit from a JSON file, or from a PNG of class ids; the stem is its name."""
    path = Path(path)
    if path.suffix.lower() == ".png":
        if not path.exists():
            raise InputError(f"no file at {path}", "an edit (PNG or JSON)", "name an existing one")
        return Edit(path.stem, (Patch(str(path)),), content=sha256(path))
    data = read_json(path)
    try:
        return parse_edit(path.stem, data)
    except InputError as error:
        raise InputError(f"{path}: {error.got}", error.wanted, error.remedy) from error


def read_edits(path: str | Path) -> list[Edit]:
    """The edit of a file, or all of a folder's, sorted by name."""
    path = Path(path)
    if not path.is_dir():
        return [read_edit(path)]
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in {".json", ".png"})
    if not found:
        raise InputError(f"no edit in {path}", "*.json or *.png files", "name a folder of edits")
    return [read_edit(p) for p in found]


def select_edits(edits: Sequence[Edit], names: Sequence[str]) -> list[Edit]:
    """The edits of these names, in their order; no names: all."""
    by_name = {edit.name: edit for edit in edits}
    return [by_name[choose("edit", name, by_name)] for name in names] if names else list(edits)


def parse_edit(name: str, data: Mapping[str, Any]) -> Edit:
    """An edit from a JSON object {"steps": [{"do": operation, ...}, ...], "area": [low, high]}."""
    if (
        not isinstance(data, Mapping)
        or not isinstance(data.get("steps"), list)
        or not data["steps"]
    ):
        raise InputError(f"edit {name} without steps", 'an object with a list "steps"', "add steps")
    steps = tuple(_step(name, step) for step in data["steps"])
    for key in data:
        choose(f"field of edit {name}", key, ("steps", "area", "without", "needs"))
    low, high = data.get("area", (0.0, 1.0))
    return Edit(
        name,
        steps,
        (float(low), float(high)),
        _build_names(data.get("without", ())),
        tuple((c, float(share)) for c, share in data.get("needs", {}).items()),
        json.dumps(data, sort_keys=True),
    )


def _step(name: str, data: Mapping[str, Any]) -> Paint | Replace | Grow | Patch:
    data = dict(data)
    kind = OPERATIONS[choose("operation", str(data.pop("do", None)), OPERATIONS)]
    for key in ("shape", "where"):
        if key in data:
            data[key] = _build(Shape, f"{key} of edit {name}", data[key])
    return _build(kind, f"{kind.__name__.lower()} of edit {name}", data)


def _build(kind: Callable, what: str, data: Mapping[str, Any]) -> Any:
    """A dataclass from a JSON object; lists become tuples, one class name a tuple of it."""
    known = {field.name: field.type for field in fields(kind)}
    values = {}
    for key, value in data.items():
        choose(f"field of {what}", key, known)
        several = str(known[key]).startswith("tuple")
        values[key] = _build_names(value) if several else _tuples(value)
    try:
        return kind(**values)
    except TypeError as error:
        raise InputError(
            f"{what} with {', '.join(data) or 'nothing'}", f"fields {', '.join(known)}", str(error)
        ) from error


def _build_names(value: Any) -> tuple:
    """A list as a tuple, and one name as a tuple of it."""
    return (value,) if isinstance(value, str) else _tuples(value)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def stroke_colors(
    image: UInt8[np.ndarray, "3 height width"],
    own: Mask,
    target: Target,
    means: Float[np.ndarray, "class 3"],  # for classes that the sample lacks
) -> UInt8[np.ndarray, "3 height width"]:
    """The color edit of an image: each region pixel has the mean color of its target class.

    The mean is over the sample's own pixels of that class if it has any, else `means`.
    """
    painted = image.copy()
    for label in np.unique(target.mask[target.region]):
        theirs = own == label
        color = image[:, theirs].mean(1) if theirs.any() else means[label]
        chosen = target.region & (target.mask == label)
        painted[:, chosen] = np.round(color).astype(np.uint8)[:, None]
    return painted


def class_colors(
    images: UInt8[np.ndarray, "sample 3 height width"],
    masks: UInt8[np.ndarray, "sample height width"],
    num_classes: int,
) -> Float[np.ndarray, "class 3"]:
    """Mean color of every class over the samples, 0-255; of a class never seen, that of all."""
    pixels, labels = np.moveaxis(images, 1, -1).reshape(-1, 3), masks.ravel()
    counts = np.bincount(labels, minlength=num_classes)
    sums = [np.bincount(labels, pixels[:, i], num_classes) for i in range(3)]
    means = np.stack(sums, 1) / np.maximum(counts, 1)[:, None]
    means[counts == 0] = pixels.mean(0)
    return means
