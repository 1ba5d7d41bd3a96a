"""The masks that are drawn here: files as `stages.fit_fewshot` reads them, with revisions."""

import hashlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from pipeline.data.annotations import Pool, SampleName, read_annotations
from pipeline.data.mask_files import write_mask
from pipeline.data.palette import UNLABELED
from pipeline.runtime.errors import InputError
from studio.place import Place
from studio.refusals import Conflict, Missing

NOTHING = "0" * 16  # the revision of a row without an annotation

Mask = UInt8[np.ndarray, "size size"]


def revision(mask: Mask) -> str:
    """16 hex digits of a mask's content."""
    if (mask == UNLABELED).all():
        return NOTHING
    return hashlib.sha256(mask.tobytes()).hexdigest()[:16]


class Drawings:
    """Annotated rows of the pool. A file exists only whole, and is there once `put` returns."""

    def __init__(self, place: Place, pool: Pool):
        self.place, self.pool = place, pool
        self.lock = threading.Lock()
        place.annotations.mkdir(parents=True, exist_ok=True)
        self.masks: dict[int, Mask] = read_annotations(place.annotations, pool)
        for row in self.masks:
            if not self.path(row).is_file():
                raise InputError(
                    f"an annotation of row {row} in {place.annotations} that was drawn elsewhere",
                    f"{self.path(row).name}, and no other files",
                    "choose another --name, and name both folders' masks in one of them",
                )

    def sample(self, row: int) -> SampleName:
        """The name of a row; Missing if the pool ends before it."""
        if not 0 <= row < len(self.pool.seeds):
            raise Missing(f"row {row}", f"0 to {len(self.pool.seeds) - 1}", "name another row")
        seed, psi = int(self.pool.seeds[row]), self.pool.truncation_psi
        return SampleName(self.place.study, "pool", row, seed, psi, self.pool.generator)

    def path(self, row: int) -> Path:
        """The file of a row."""
        return self.place.annotations / f"{self.sample(row)}.png"

    def get(self, row: int) -> Mask:
        """The annotation of a row; UNLABELED everywhere if there is none."""
        self.sample(row)
        return self.masks.get(row, self._nothing())

    def put(self, row: int, mask: Mask, expected: str) -> str:
        """Write an annotation over the one of revision `expected`; its own revision."""
        self.sample(row)
        if (worst := mask[mask != UNLABELED].max(initial=0)) >= len(self.pool.classes):
            raise InputError(
                f"class id {worst}",
                f"ids below {len(self.pool.classes)}, or {UNLABELED}",
                "paint with the classes of the study",
            )
        with self.lock:
            now = revision(self.get(row))
            if expected != now:
                raise Conflict(
                    f"a change of revision {expected} of row {row}",
                    f"revision {now}",
                    "load the annotation again: another tab has changed it",
                    now,
                )
            if (mask == UNLABELED).all():
                self.path(row).unlink(missing_ok=True)
                self.masks.pop(row, None)
            else:
                self._write(row, mask)
                self.masks[row] = mask
        return revision(mask)

    def _write(self, row: int, mask: Mask) -> None:
        """Beside the folder first: a reader of annotations refuses what is no mask."""
        waiting = self.place.state / "writing.png"
        write_mask(waiting, mask, self.pool.classes)
        os.replace(waiting, self.path(row))

    def _nothing(self) -> Mask:
        return np.full((self.pool.size, self.pool.size), UNLABELED, np.uint8)

    def labelled(self, row: int) -> int:
        """Labelled pixels of a row."""
        return int((self.masks[row] != UNLABELED).sum()) if row in self.masks else 0

    def revisions(self) -> dict[int, str]:
        """{row: revision} of all annotated rows: what a fit depends on."""
        return {row: revision(mask) for row, mask in sorted(self.masks.items())}

    def counts(self) -> list[tuple[int, int]]:
        """(labelled pixels, samples that show some) of each class."""
        return count_classes(dict(self.masks), len(self.pool.classes))


def count_classes(masks: Mapping[int, Mask], num_classes: int) -> list[tuple[int, int]]:
    """(labelled pixels, samples that show some) of each class."""
    each = [np.bincount(mask.ravel(), minlength=256)[:num_classes] for mask in masks.values()]
    table = np.stack(each) if each else np.zeros((1, num_classes), np.int64)
    return [(int(column.sum()), int((column > 0).sum())) for column in table.T]
