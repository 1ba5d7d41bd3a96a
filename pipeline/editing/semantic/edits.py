"""Edits as data: what a user paints on a sample's own mask (Xu & Zheng, CVPR 2021, appendix G).

An edit is a list of steps; lengths are fractions of a box around some classes, so one edit fits
faces of any place and size, and masks of any resolution. A PNG of class ids is an edit, too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from pipeline.data.mask_files import LEAVE, read_patch
from pipeline.editing.semantic.shapes import (
    Inapplicable,
    Mask,
    Region,
    Shape,
    among,
    boxes,
    nearest,
    present,
)
from pipeline.runtime.errors import InputError

TRACE = 0.001  # of a mask: a sample with fewer pixels of a class is one without it
CLASS_FIELDS = {"to", "classes", "over", "box"}


@dataclass(frozen=True)
class Paint:
    """Pixels of a shape become `to`."""

    to: str
    shape: Shape
    over: tuple[str, ...] = ()  # only where the mask shows these; none: anywhere

    def apply(self, mask: Mask, ids: Mapping[str, int]) -> Mask:
        where = self.shape.region(mask, ids) & among(mask, ids, self.over)
        return np.where(where, np.uint8(ids[self.to]), mask)


@dataclass(frozen=True)
class Replace:
    """Pixels of some classes become `to`; of several, each becomes the nearest one's class."""

    classes: tuple[str, ...]
    to: tuple[str, ...]
    where: Shape | None = None

    def apply(self, mask: Mask, ids: Mapping[str, int]) -> Mask:
        chosen = present(mask, ids, self.classes)
        if self.where is not None:
            chosen &= self.where.region(mask, ids)
        if len(self.to) == 1:
            return np.where(chosen, np.uint8(ids[self.to[0]]), mask)
        source = present(mask, ids, self.to)
        return np.where(chosen, nearest(mask, source)[1], mask)


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
        source = present(mask, ids, self.classes)
        (box,) = boxes(mask, ids, self.box)
        distance, theirs = nearest(mask, source)
        near = distance - 0.5 <= self.by * box.side  # from the edge of the nearest pixel
        return np.where(near & among(mask, ids, self.over), theirs, mask)


@dataclass(frozen=True)
class Patch:
    """A PNG of class ids over the whole mask; 255 leaves the sample's own class."""

    path: str

    def apply(self, mask: Mask, ids: Mapping[str, int]) -> Mask:
        ours = read_patch(self.path, list(ids), mask.shape)
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
