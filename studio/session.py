"""A session: what the page does, as a Python API. Every kind of job is one method.

with Session(find_place("digiface")) as session:
session.draw(3, mask, NOTHING)
job = session.fit()
"""

import threading
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from pipeline.data.annotations import Pool
from pipeline.data.mask_files import read_ids, write_mask
from pipeline.data.palette import UNLABELED
from pipeline.runtime.errors import InputError
from studio.current import LOOK, Current
from studio.drawings import NOTHING, Drawings, Mask, revision
from studio.events import Events
from studio.jobs import Jobs
from studio.journal import Job, Journal
from studio.kinds import START
from studio.lanes import Lane
from studio.looks import Looks
from studio.place import Place
from studio.refusals import Missing
from studio.requests import check_ids
from studio.samples import BASES, MAX_SEED, Move, Sample

UNSEEN = tuple(f"seed-{seed}" for seed in range(1, 7))


class Session:
    """One study, one folder of annotations, two lanes. Methods may be called from any thread."""

    def __init__(self, place: Place):
        self.place = place
        place.claim()
        self.file_lock = _locked(place)
        self.events = Events()
        self.lock = threading.RLock()
        self.quick = Lane("quick", place, self._restarted)
        self.long = Lane("long", place, self._restarted)
        try:
            self.facts: dict[str, Any] = self.quick.submit("open", {}).future.result()
            self.pool: Pool = self.facts["pool"]
            self.drawings = Drawings(place, self.pool)
        except BaseException:
            self._stop()
            raise
        self.long.submit("warm", {})
        self.jobs = Jobs(Journal(place.state / "jobs.jsonl"), self.events)
        self.looks = Looks(self.quick, LOOK)
        settled = self.facts["settled"]
        self.current = Current(self.quick, self.drawings, self.events, settled, self._idle)
        for job in self.jobs.unfinished():
            START[job.kind](self, job)

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End both processes; unfinished jobs go on at the next start."""
        self.jobs.closed = True
        self.current.stop()
        self._stop()

    def _stop(self) -> None:
        for lane in (self.quick, self.long):
            lane.close()
        self.file_lock.release()

    # What is there

    def state(self) -> dict:
        """All that a page needs to begin."""
        last = self.events.last
        rows = range(len(self.pool.seeds))
        revisions, counts = self.drawings.revisions(), self.drawings.counts()
        current = self.current.facts()
        return {
            "study": self.place.study,
            "name": self.place.name,
            "psi": self.pool.truncation_psi,
            "size": self.pool.size,
            "resolution": self.facts["resolution"],
            "preview_size": self.facts["preview_size"],
            "classes": [
                {"id": i, "name": name, "color": color, "labelled": pixels, "samples": samples}
                for i, (name, color, (pixels, samples)) in enumerate(
                    zip(self.pool.classes, self.facts["colors"], counts, strict=True)
                )
            ],
            "pool": [
                {
                    "row": row,
                    "sample": f"pool-{row}",
                    "seed": int(self.pool.seeds[row]),
                    "labelled": self.drawings.labelled(row),
                    "revision": revisions.get(row, NOTHING),
                }
                for row in rows
            ],
            "suggested": current.pop("suggested"),
            "unseen": list(UNSEEN),
            "extractor": current,
            "jobs": self.jobs.shown(),
            "photos": [],
            "judge": self.place.judge is not None,
            "min_pixels": self.place.min_pixels,
            "photos_available": False,
            "experiment": self.place.experiment,
            "last_event": last,
        }

    def find(self, name: str) -> Sample:
        """A sample by its name; Missing if there is none of it."""
        base, _, number = name.partition("-")
        if not (number.isascii() and number.isdecimal() and len(number) <= 10):
            raise Missing(f"sample {name!r:.40}", "pool-3, seed-7 or edit-12", "name another one")
        if base == "edit":
            return self._edited(int(number))
        limit = len(self.pool.seeds) if base == "pool" else MAX_SEED + 1
        known = base in BASES and int(number) < limit
        if not known or (base == "photo" and not self._inverted(int(number))):
            raise Missing(f"sample {name!r:.40}", "one that there is", "name another one")
        return Sample(base, int(number))

    def _edited(self, number: int) -> Sample:
        move = self.move(number)
        result = self.jobs.get(number).result or {}  # of a job that is done there is one
        return self.find(result["source"]).moved(move)

    def move(self, number: int) -> Move:
        """The vector of an edit or a transfer; Missing unless it is done."""
        job = self.jobs.get(number)
        if job.state != "done" or job.kind not in ("edit", "transfer"):
            raise Missing(f"edit {number}", "an edit that is done", "name another one")
        return Move(str(self.place.results(number)))

    def _inverted(self, number: int) -> bool:
        return (self.place.photo(number) / "ws.safetensors").exists()

    def look(
        self, name: str, kind: str, edit: int | None = None, strength: float = 1.0
    ) -> tuple[Future, int]:
        """The bytes to come of an `image`, `preview` or `mask`, and the extractor's version."""
        sample, version = self.find(name), self.current.version
        if edit is not None:
            sample = sample.moved(replace(self.move(edit), strength=strength))
        return self.looks.get(sample, kind, version), version

    # Annotations

    def annotation(self, row: int) -> tuple[Mask, str]:
        """The mask drawn on a row, and its revision."""
        mask = self.drawings.get(row)
        return mask, revision(mask)

    def draw(self, row: int, mask: Mask, expected: str) -> dict:
        """Keep the mask of a row; Conflict unless it is of revision `expected` until now."""
        now = self.drawings.put(row, mask, expected)
        facts = {"row": row, "revision": now, "labelled": self.drawings.labelled(row)}
        self.events.add("annotation", facts | {"classes": self.drawings.counts()})
        for job in self.jobs.unfinished():
            if job.automatic:
                self.jobs.give_up(job)
        self.current.stroke()
        return facts

    def erase(self, row: int, expected: str) -> dict:
        """Remove the annotation of a row, as drawing UNLABELED everywhere does."""
        return self.draw(
            row, np.full((self.pool.size, self.pool.size), UNLABELED, np.uint8), expected
        )

    # Jobs

    def fit(self, automatic: bool = False) -> Job:
        """Fit the annotations, as `stages.fit_fewshot` does, and save the extractor."""
        if not self.drawings.masks:
            raise InputError("no annotation", "at least one sample", "annotate it first")
        return self._begin("fit", {}, automatic)

    def edit(self, source: str, mask: Mask, steps: int = 50) -> Job:
        """Move a sample until it shows a painted mask, as `stages.edit_semantics` does.

        UNLABELED leaves the sample as it is. InputError for a class that the guide does not know.
        """
        self.find(source)
        self._check_painted(mask, blank=True)
        return self._begin("edit", {"source": source, "steps": steps}, mask=mask)

    def sample(self, mask: Mask, count: int = 4, steps: int = 50) -> Job:
        """Images that show a painted mask, as `stages.sample_conditionally` makes them."""
        self._check_painted(mask, blank=False)
        return self._begin("sample", {"count": count, "steps": steps}, mask=mask)

    def transfer(self, edit: int, to: str, strength: float = 1.0) -> Job:
        """Add the vector of an edit to another sample, and keep what comes of it."""
        move, _ = self.move(edit), self.find(to)
        painted = read_ids(Path(move.folder) / "edit.png", self.pool.classes)
        request = {"edit": edit, "to": to, "strength": strength}
        return self._begin("transfer", request, mask=painted)

    def guide(self) -> tuple[Path, str]:
        """The LSE that guides edits, and what it is; InputError if there is none."""
        path = self.place.fewshot if self.drawings.masks else self.place.full
        if path is None:
            raise InputError("no extractor", "one of annotations", "annotate a sample first")
        return path, self.current.title

    def export(self, samples: int = 8) -> Job:
        """Write images of the pool for other annotation tools, as `stages.export_samples` does."""
        return self._begin("export", {"samples": min(samples, len(self.pool.seeds))})

    def cancel(self, number: int) -> None:
        """Give a job up; Conflict if it is over."""
        self.jobs.cancel(number)

    def _begin(
        self, kind: str, request: dict, automatic: bool = False, mask: Mask | None = None
    ) -> Job:
        job = self.jobs.journal.new(kind, request, automatic)
        if mask is not None:
            name = "target.png" if kind == "sample" else "edit.png"
            write_mask(self.place.results(job.id) / name, mask, self.pool.classes)
        self.jobs.add(job)
        START[kind](self, job)
        return job

    def _check_painted(self, mask: Mask, blank: bool) -> None:
        """InputError for ids that are no class, and for classes that the guide has hardly seen."""
        check_ids(mask, len(self.pool.classes), blank)
        if (mask == UNLABELED).all():
            raise InputError("a mask without paint", "at least one pixel", "paint on it")
        counts = self.drawings.counts() if self.drawings.masks else []
        for label in np.unique(mask[mask != UNLABELED]) if counts else ():
            if (pixels := counts[label][0]) < self.place.min_pixels:
                raise InputError(
                    f"class {self.pool.classes[label]} with {pixels} labelled pixels",
                    f"at least {self.place.min_pixels}",
                    "annotate it first",
                )

    def _idle(self) -> None:
        if not self.jobs.closed and self.drawings.masks and not self.current.is_settled:
            self.fit(automatic=True)

    def _restarted(self, lane: str) -> None:
        self.events.add("lane", {"lane": lane, "state": "restarted"})
        if lane == "quick":
            self.current.recover()


def _locked(place: Place) -> FileLock:
    lock = FileLock(place.state / "lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise InputError(
            f"session {place.name}, which is open already",
            "one studio per session",
            "close the other one, or choose another --name",
        ) from error
    return lock
