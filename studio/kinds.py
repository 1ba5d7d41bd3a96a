"""How a job of each kind begins: from its request and its files, at first and after a restart."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING

from studio import commands
from studio.current import FIT, LOOK
from studio.journal import Job

if TYPE_CHECKING:
    from studio.session import Session


def start_fit(session: "Session", job: Job) -> None:
    """A settled fit of all annotations."""

    def finish(found: dict) -> dict:
        session.current.fitted(found["revisions"])
        classes = session.pool.classes
        counts = zip(classes, session.drawings.counts(), strict=True)
        return {
            "version": session.current.version,
            "samples": len(found["revisions"]),
            "pixels": found["pixels"],
            "labelled": {name: pixels for name, (pixels, _) in counts if pixels},
            "suggested": session.current.suggested,
            "file": str(session.place.fewshot),
        }

    job.command = commands.fit(session.place)
    session.jobs.run(job, session.quick, "settle", {}, FIT, finish)


def start_export(session: "Session", job: Job) -> None:
    """Images of the pool for other annotation tools."""
    folder = session.place.results(job.id)
    arguments = {"count": job.request["samples"], "folder": folder}
    job.command = commands.export(session.place, job.request["samples"], folder)

    def finish(files: list[str]) -> dict:
        return {"folder": str(folder), "files": files}

    session.jobs.run(job, session.quick, "export", arguments, FIT, finish)


def start_edit(session: "Session", job: Job) -> None:
    """An edit of a sample, by what is painted in edit.png of the job's folder."""
    folder, request = session.place.results(job.id), job.request

    def begin() -> None:
        sample, (guide, title) = session.find(request["source"]), session.guide()
        arguments = {"sample": sample, "folder": folder, "guide": guide, "steps": request["steps"]}
        job.command = commands.edit(session.place, sample, folder, request["steps"])

        def finish(found: dict) -> dict:
            return {"sample": f"edit-{job.id}", "source": request["source"], "guide": title} | found

        session.jobs.run(job, session.long, "edit", arguments, FIT, finish)

    _guided(session, job, begin)


def start_sample(session: "Session", job: Job) -> None:
    """Images of what is painted in target.png of the job's folder."""
    folder = session.place.results(job.id)

    def begin() -> None:
        guide, title = session.guide()
        arguments = {"folder": folder, "guide": guide} | job.request
        job.command = commands.sample(session.place, folder, **job.request)

        def finish(found: dict) -> dict:
            return {"guide": title} | found

        session.jobs.run(job, session.long, "sample", arguments, FIT, finish)

    _guided(session, job, begin)


def start_transfer(session: "Session", job: Job) -> None:
    """The vector of an edit, added to another sample."""
    folder, request = session.place.results(job.id), job.request

    def begin() -> None:
        guide, title = session.guide()
        sample, move = session.find(request["to"]), session.move(request["edit"])
        moved = sample.moved(replace(move, strength=request["strength"]))
        arguments = {"sample": sample, "moved": moved, "folder": folder, "guide": guide}

        def finish(found: dict) -> dict:
            told = {"edit": request["edit"], "strength": request["strength"], "guide": title}
            return {"sample": f"edit-{job.id}", "source": request["to"]} | told | found

        session.jobs.run(job, session.quick, "transfer", arguments, FIT, finish)

    _guided(session, job, begin)


def _guided(session: "Session", job: Job, begin: Callable[[], None]) -> None:
    """Begin a job once the saved extractor is of all that is drawn."""
    if session.current.is_settled:
        session.jobs.attempt(job, begin)
        return

    def settled(future: Future) -> None:
        session.current.fitted(future.result()["revisions"])
        begin()

    task = session.quick.submit("settle", {}, LOOK)
    task.future.add_done_callback(lambda future: session.jobs.attempt(job, lambda: settled(future)))


START: dict[str, Callable[["Session", Job], None]] = {
    "fit": start_fit,
    "edit": start_edit,
    "sample": start_sample,
    "transfer": start_transfer,
    "export": start_export,
}
