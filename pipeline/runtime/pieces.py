"""Finished pieces of work: small files in the store, named by all that their values depend on.

A killed stage goes on behind its last finished piece, and another experiment that needs the same
piece reads it. One engine for conditional samples, edits, style transfers, direction probes and
few-shot fits.
"""

import os
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from pipeline.runtime import workers
from pipeline.runtime.files import atomic, fingerprint, store_root
from pipeline.runtime.imports import code_digest

FOLDER = "pieces"  # of the store
DAY = 86_400

Task = TypeVar("Task")
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Kind(Generic[Task]):
    """A kind of work: tasks, and the function that makes the arrays of some of them.

    `make` takes a batch of tasks and returns {name: array} for each. It is a function of a module,
    pickled by name for worker processes. The code that this module can import is part of a piece's
    name, so a code edit makes new pieces.
    """

    name: str  # its folder in the store
    make: Callable[[Sequence[Task]], Sequence[Arrays]]
    facts: Callable[[Task], object]  # JSON value: all that the arrays depend on besides the code

    def path(self, task: Task) -> Path:
        """Where the piece of a task is, or will be."""
        code = code_digest(self.make.__module__)
        name = fingerprint([self.facts(task), self.make.__name__, code])
        return store_root() / FOLDER / self.name / f"{name}.npz"

    def run(
        self,
        tasks: Sequence[Task],
        *,
        device: str,
        num_workers: int = 0,
        batches: Callable[[Sequence[Task]], Sequence[Sequence[Task]]] | None = None,
        what: str | None = None,  # names the work in the progress line
    ) -> list[dict[str, np.ndarray]]:
        """The arrays of every task, in order; what has no readable piece yet is made.

        `batches` groups missing tasks that are made together; None: each by itself. Batches run in
        the order given, `num_workers` of them at a time (0: one per core).
        """
        paths = [self.path(task) for task in tasks]
        todo = [
            task
            for i, (task, path) in enumerate(zip(tasks, paths, strict=True))
            if path not in paths[:i] and not _readable(path)
        ]
        groups = list(batches(todo)) if batches else [[task] for task in todo]
        if groups:
            processes = workers.count(num_workers, device, len(groups))
            for _ in workers.run(partial(_finish, self), groups, what or self.name, processes):
                pass
        return [_read(path) for path in paths]


def _finish(kind: Kind[Task], tasks: Sequence[Task]) -> None:
    """Make some tasks and write a piece each."""
    for task, arrays in zip(tasks, kind.make(tasks), strict=True):
        with atomic(kind.path(task)) as partial_path, open(partial_path, "wb") as file:
            np.savez(file, **arrays)


def _readable(path: Path) -> bool:
    """Whether a piece is there and whole: zip files carry check sums."""
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
