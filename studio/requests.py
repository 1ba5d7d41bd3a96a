"""What a client may ask for: every value is checked before anything is done with it."""

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.data.palette import UNLABELED
from pipeline.runtime.errors import InputError
from studio.drawings import Mask

# Of each kind of job: name: (type, lowest, highest, default); no default: required.
FIELDS: dict[str, dict[str, Any]] = {
    "fit": {},
    "edit": {"source": str, "mask": bytes, "steps": (int, 1, 200, 50)},
    "sample": {"mask": bytes, "count": (int, 1, 8, 4), "steps": (int, 1, 200, 50)},
    "invert": {"photo": (int, 1, 2**31 - 1, None)},
    "transfer": {"edit": (int, 1, 2**31 - 1, None), "to": str, "strength": (float, -1, 2, 1.0)},
    "export": {"samples": (int, 1, 10_000, 8)},
}


def read_job(body: Any, size: int) -> tuple[str, dict[str, Any]]:
    """Kind and arguments of a job; InputError for anything that is not as API.md says."""
    if not isinstance(body, dict) or body.get("kind") not in FIELDS:
        raise InputError(
            f"a job of kind {body.get('kind')!r:.40}" if isinstance(body, dict) else "no object",
            f"kind {', '.join(FIELDS)}",
            "see studio/API.md",
        )
    kind, known = body["kind"], FIELDS[body["kind"]]
    if unknown := [key for key in body if key not in (*known, "kind")]:
        raise InputError(
            f"field {unknown[0]!r:.40} of a job {kind}",
            f"only {', '.join(known) or 'kind'}",
            "see studio/API.md",
        )
    return kind, {name: _field(body, name, form, size) for name, form in known.items()}


def _field(body: Mapping, name: str, form: Any, size: int) -> Any:
    if form is str:
        return _text(body.get(name), name)
    if form is bytes:
        return read_mask(_decoded(body.get(name)), size)
    kind, low, high, default = form
    return number(body.get(name, default), name, kind, low, high)


def number(value: Any, name: str, kind: type, low: float, high: float) -> Any:
    """A number within its bounds."""
    fits = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    if not fits or not math.isfinite(value) or not low <= value <= high:
        raise InputError(f"{name} {value!r:.40}", f"{low} to {high}", f"change {name}")
    return kind(value)


def read_number(text: str, name: str, kind: type, low: float, high: float) -> Any:
    """A number of an address."""
    try:
        value = kind(text)
    except (ValueError, OverflowError):
        value = text
    return number(value, name, kind, low, high)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or len(value) > 40:
        raise InputError(f"{name} {value!r:.40}", "the name of a sample", f"change {name}")
    return value


def _decoded(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise InputError("a mask that is not base64", "base64", "see studio/API.md") from error


def read_mask(data: bytes, size: int) -> Mask:
    """A mask from its bytes."""
    if len(data) != size * size:
        raise InputError(
            f"a mask of {len(data)} bytes", f"{size} x {size} bytes", "send one byte per pixel"
        )
    return np.frombuffer(data, np.uint8).reshape(size, size).copy()


def check_ids(mask: Mask, num_classes: int, blank: bool) -> None:
    """InputError for ids that are no class, and for UNLABELED unless `blank`."""
    wrong = mask[(mask >= num_classes) & ~(blank & (mask == UNLABELED))]
    if len(wrong):
        raise InputError(
            f"class id {wrong[0]}",
            f"ids below {num_classes}" + (f", or {UNLABELED}" if blank else ""),
            "paint with the classes of the study",
        )
