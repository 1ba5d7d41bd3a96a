"""Files that exist only when complete: write under a temporary name, rename at the end."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import InputError


@contextmanager
def atomic(path: str | Path, sync: bool = True) -> Iterator[Path]:
    """Yield `<path>.partial` to write to; rename it to `path` on success, remove it on failure.

    What is written is on the disk before the name is, so that a file is whole after a power cut,
    too; without `sync` for files that carry check sums and are made again where these fail.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        if sync:
            _sync(partial)
        os.replace(partial, path)
        if sync:
            _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: str | Path) -> str:
    """Hex sha256 of a file, read in blocks; of a folder, over its files' names and contents."""
    if Path(path).is_dir():
        files = sorted(p for p in Path(path).rglob("*") if p.is_file())
        hidden = [any(part.startswith(".") for part in p.relative_to(path).parts) for p in files]
        shown = [p for p, hide in zip(files, hidden, strict=True) if not hide]
        named = [[p.relative_to(path).as_posix(), sha256(p)] for p in shown]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise InputError(
            f"no file or folder at {path}",
            "a path on this machine",
            "fetch it first; of a Hugging Face model: `hf download OWNER/NAME --local-dir FOLDER`",
        ) from error


def fingerprint(facts: object) -> str:
    """First 16 hex digits of the sha256 of `facts` as canonical JSON."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def write_json(path: str | Path, value: object, sync: bool = True) -> None:
    """Write `value` as indented JSON with sorted keys, atomically."""
    with atomic(path, sync) as partial:
        partial.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def write_arrays(path: str | Path, arrays: Mapping[str, Any], sync: bool = True) -> None:
    """Write NumPy arrays {name: array} as an uncompressed .npz file, atomically; see `atomic`."""
    import numpy as np

    with atomic(path, sync) as partial, open(partial, "wb") as file:
        np.savez(file, **arrays)


def read_json(path: str | Path) -> dict:
    """Read a JSON object; InputError names the file if it is missing or damaged."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise InputError(
            f"no file at {path}", "a JSON file", "run `dvc repro` to make it"
        ) from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, which is not JSON ({error})", "a JSON file", "delete it and run `dvc repro`"
        ) from error


def store_root() -> Path:
    """$PIPELINE_STORE, else .store beside the DVC project that runs the stage."""
    return Path(
        os.environ.get("PIPELINE_STORE") or Path(os.environ.get("DVC_ROOT", ".")) / ".store"
    ).absolute()


def local_file(path: str | Path, digest: str) -> Path:
    """A user's file of this sha256: `path`, or `path` beside the DVC project that runs the stage.

    Temporary experiments run in a copy of the tracked files only, and DVC sets $DVC_ROOT there.
    """
    places = [Path(path), Path(os.environ.get("DVC_ROOT", ".")) / path]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise InputError(
            f"no file at {path}", "the study's checkpoint", "fetch it there, or change load.file"
        )
    if (actual := sha256(found)) != digest:
        raise InputError(
            f"{path} of sha256 {actual}",
            f"sha256 {digest}",
            "fetch it again, or pin the new sha256",
        )
    return found
