"""Edits as files: one JSON object of steps, or one PNG of class ids, each."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from pipeline.editing.semantic.edits import OPERATIONS, Edit, Grow, Paint, Patch, Replace
from pipeline.editing.semantic.shapes import Shape
from pipeline.runtime.errors import InputError, choose
from pipeline.runtime.files import sha256


def read_edit(path: str | Path) -> Edit:
    """Read an edit from a JSON file, or from a PNG of class ids; the stem is its name."""
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"no file at {path}", "an edit (JSON or PNG)", "name a file as those of edits/"
        )
    if path.suffix.lower() == ".png":
        return Edit(path.stem, (Patch(str(path)),), content=sha256(path))
    try:
        return parse_edit(path.stem, json.loads(path.read_text()))
    except InputError as error:
        raise InputError(f"{path}: {error.got}", error.wanted, error.remedy) from error
    except ValueError as error:  # of JSON, or of its encoding
        raise InputError(
            f"{path}, which is not JSON ({error})",
            'a JSON object {"steps": [...]}, or a PNG of class ids',
            "correct it as edits/README.md says",
        ) from error


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


def _build(kind: type, what: str, data: Mapping[str, Any]) -> Any:
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
