"""Finished pieces of work: small files in the store, named by all that their values depend on.

A stage that was killed goes on behind its last finished piece, and another experiment that needs
the same piece reads it: few-shot fits and their scores, conditional samples, edits.
"""

import os
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from pipeline.runtime import workers
from pipeline.runtime.files import fingerprint, store_root, write_arrays
from pipeline.runtime.imports import code_digest

FOLDER = "pieces"  # of the store
DAY = 86_400  # seconds

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Kind:
    """A kind of work. The code that `module` can import is part of a piece's name."""

    name: str  # its folder in the store
    module: str  # makes the arrays: a code edit there, or below it, makes new pieces

    def path(self, facts: object) -> Path:
        """The file of the piece that depends on `facts`, a JSON value, and on nothing else."""
        name = fingerprint([facts, code_digest(self.module)])
        return store_root() / FOLDER / self.name / f"{name}.npz"

    def read(self, facts: object) -> dict[str, np.ndarray] | None:
        """The arrays of a piece; None if there is no whole one."""
        path = self.path(facts)
        return _read(path) if _whole(path) else None

    def write(self, facts: object, arrays: Arrays) -> None:
        """Keep the arrays of a piece."""
        write_arrays(self.path(facts), arrays, sync=False)


@runtime_checkable
class Task(Protocol):
    """A piece of work that a process can do by itself."""

    @property
    def facts(self) -> object:
        """All that the arrays depend on, as a JSON value; where files lie does not matter."""

    def work(self) -> Arrays:
        """Make the arrays."""


def run(
    kind: Kind,
    tasks: Sequence[Task],
    device: str,
    num_workers: int = 0,  # tasks at a time; 0: one per core
    what: str = "",  # names the work in the progress line
) -> list[dict[str, np.ndarray]]:
    """The arrays of every task, in order; what has no whole piece yet is made, in that order."""
    paths = [kind.path(task.facts) for task in tasks]
    pairs = zip(tasks, paths, strict=True)
    missing = [(task, path) for task, path in pairs if not _whole(path)]
    if missing:
        processes = workers.count(num_workers, device, len(missing))
        for _ in workers.run(_finish, missing, what or kind.name, processes):
            pass
    return [_read(path) for path in paths]


def _finish(pair: tuple[Task, Path]) -> None:
    """Make the piece of a task, unless another process has made it meanwhile."""
    task, path = pair
    if not _whole(path):
        write_arrays(path, task.work(), sync=False)


def _whole(path: Path) -> bool:
    """Whether a piece is there and undamaged: zip files carry check sums."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError):
        return False


def _read(path: Path) -> dict[str, np.ndarray]:
    os.utime(path)  # when it was last used, for `remove_unused`
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def list_pieces(root: Path) -> Iterator[tuple[str, list[Path]]]:
    """(kind, files) of every kind that has pieces in the store at `root`."""
    for folder in sorted((root / FOLDER).glob("*/")):
        if files := sorted(folder.glob("*.npz")):
            yield folder.name, files


def remove_unused(root: Path, days: float, dry_run: bool = False) -> list[Path]:
    """Remove pieces that no run has read for so many days; returns those (to be) removed."""
    limit = time.time() - days * DAY
    unused = [p for _, files in list_pieces(root) for p in files if p.stat().st_mtime < limit]
    for path in [] if dry_run else unused:
        path.unlink(missing_ok=True)
    return unused
