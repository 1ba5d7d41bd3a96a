"""Jobs on disk: one line of JSON per change, the last line of a job counts."""

import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.runtime.files import atomic

OVER = ("done", "failed", "cancelled")


@dataclass
class Job:
    """One job, as `GET /api/jobs/ID` shows it."""

    id: int
    kind: str
    request: dict
    automatic: bool = False
    state: str = "queued"
    created: float = field(default_factory=time.time)  # seconds since 1970
    seconds: float | None = None  # that it ran, on the clock
    progress: dict | None = None
    result: dict | None = None
    error: dict | None = None
    command: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in OVER


class Journal:
    """All jobs of a session. What `write` has returned from survives a kill."""

    def __init__(self, path: Path):
        self.path, self.lock = path, threading.Lock()
        self.jobs: dict[int, Job] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                job = Job(**json.loads(line))
            except (ValueError, TypeError):  # the line that a kill cut short
                continue
            self.jobs[job.id] = job
        with atomic(path) as partial:
            partial.write_text("".join(map(_line, self.jobs.values())))

    def new(self, kind: str, request: dict, automatic: bool = False) -> Job:
        """A job with a number of its own; `write` makes it last."""
        with self.lock:
            job = Job(max(self.jobs, default=0) + 1, kind, request, automatic)
            self.jobs[job.id] = job
        return job

    def write(self, job: Job) -> None:
        """Put a job's state on disk."""
        with self.lock, open(self.path, "a") as file:
            file.write(_line(job))


def _line(job: Job) -> str:
    kept = {key: value for key, value in vars(job).items() if key != "progress"}
    return json.dumps(kept) + "\n"
