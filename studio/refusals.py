"""What a request is refused with, beside InputError: each is an HTTP status of its own."""

from pipeline.runtime.errors import InputError


class Missing(InputError):
    """There is no such thing (404)."""


class Conflict(InputError):
    """Another tab was quicker, or a job is over (409)."""

    def __init__(self, got: str, wanted: str, remedy: str, revision: str | None = None):
        super().__init__(got, wanted, remedy)
        self.revision = revision


class Restarting(InputError):
    """The process that would answer is being restarted (503)."""


class DiskFull(InputError):
    """Nothing could be written (507)."""


class Cancelled(Exception):
    """A job that somebody cancelled."""
