"""Jobs from the request to the result: on disk, through a lane, and told to the readers."""

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict
from functools import partial
from typing import Any

from pipeline.runtime.errors import InputError
from studio.events import Events
from studio.journal import Job, Journal
from studio.lanes import Lane, Task
from studio.refusals import Cancelled, Conflict, Missing

SHOWN = 100  # jobs that a session shows


class Jobs:
    """All jobs of a session. A job is acknowledged once its line is in the journal."""

    def __init__(self, journal: Journal, events: Events):
        self.journal, self.events = journal, events
        self.tasks: dict[int, tuple[Lane, Task]] = {}
        self.frames: dict[int, bytes] = {}
        self.lock = threading.RLock()
        self.closed = False

    def get(self, number: int) -> Job:
        """A job; Missing if there is none of this number."""
        if number not in self.journal.jobs:
            raise Missing(f"job {number}", "a job of this session", "name another one")
        return self.journal.jobs[number]

    def show(self, number: int) -> dict:
        """A job as JSON."""
        job = self.get(number)
        with self.lock:
            return asdict(job)

    def frame(self, number: int) -> bytes:
        """The latest frame of a job that runs (JPEG); Missing before the first."""
        self.get(number)
        if number not in self.frames:
            raise Missing(f"a frame of job {number}", "one of a job that runs", "wait for it")
        return self.frames[number]

    def shown(self) -> list[dict]:
        """The last jobs, oldest first."""
        with self.lock:
            return [asdict(job) for job in list(self.journal.jobs.values())[-SHOWN:]]

    def unfinished(self) -> list[Job]:
        """What an earlier run of the server has left undone."""
        return [job for job in self.journal.jobs.values() if not job.over]

    def add(self, job: Job) -> Job:
        """Put a job on disk and tell of it."""
        self._change(job, "queued")
        return job

    def run(
        self,
        job: Job,
        lane: Lane,
        method: str,
        arguments: dict,
        priority: int,
        finish: Callable[[Any], dict],  # from what the lane gives to the job's result
    ) -> None:
        """Queue a job's task."""
        began = time.monotonic()

        def started() -> None:
            nonlocal began
            began = time.monotonic()
            self._change(job, "running", "progress")

        def progress(value: dict) -> None:
            with self.lock:
                if frame := value.pop("jpeg", None):
                    self.frames[job.id] = frame
                job.progress, job.seconds = value, round(time.monotonic() - began, 3)
                self.events.add("progress", asdict(job))

        def ended(future: Future) -> None:
            job.seconds = round(time.monotonic() - began, 3)
            self.tasks.pop(job.id, None)
            self.frames.pop(job.id, None)
            self.finish(job, lambda: finish(future.result()))

        with self.lock:
            if job.over:  # cancelled before it had a task
                return
            task = lane.submit(method, arguments, priority, None, progress, started)
            self.tasks[job.id] = lane, task
        task.future.add_done_callback(ended)

    def attempt(self, job: Job, begin: Callable[[], None]) -> None:
        """Begin a job; it fails with what `begin` raises."""
        try:
            begin()
        except (InputError, Cancelled) as error:
            self.finish(job, partial(_raise, error))

    def finish(self, job: Job, result: Callable[[], dict]) -> None:
        """End a job with what `result` gives or raises."""
        if self.closed:  # it goes on at the next start
            return
        try:
            job.result = result()
            state = "done"
        except Cancelled:
            state = "cancelled"
        except InputError as error:
            job.error, state = error_facts(error), "failed"
        self._change(job, state)

    def give_up(self, job: Job) -> None:
        """Cancel a job if it is not over."""
        with contextlib.suppress(Conflict):
            self.cancel(job.id)

    def cancel(self, number: int) -> None:
        """Give a job up; Conflict if it is over."""
        job = self.get(number)
        with self.lock:
            if job.over:
                raise Conflict(f"job {number}, which is {job.state}", "one that runs", "leave it")
            begun = self.tasks.get(number)
            if begun is None:
                self.finish(job, partial(_raise, Cancelled()))
        if begun is not None:
            lane, task = begun
            lane.cancel(task)

    def _change(self, job: Job, state: str, event: str | None = None) -> None:
        with self.lock:
            job.state = state
            self.journal.write(job)
            self.events.add(event or state, asdict(job))


def error_facts(error: InputError) -> dict[str, str]:
    """An error as JSON."""
    return {"got": error.got, "wanted": error.wanted, "remedy": error.remedy}


def _raise(error: Exception) -> dict:
    raise error
