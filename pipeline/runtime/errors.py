"""The one exception for bad input: a sentence with what was given, what was wanted and a remedy."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class InputError(ValueError):
    """Bad input from a user. Stages print it as one line and exit with status 2."""

    def __init__(self, got: str, wanted: str, remedy: str):
        super().__init__(f"got {got}; wanted {wanted}; {remedy}")
        self.got, self.wanted, self.remedy = got, wanted, remedy

    def __reduce__(self) -> tuple:  # a worker process hands it to its parent
        return type(self), (self.got, self.wanted, self.remedy)


class Damaged(InputError):
    """A file whose bytes are not those that were written; it is gone now, and can be made again."""


def choose(kind: str, name: str, table: Iterable[str]) -> str:
    """Return `name` if it is a key of `table`, else raise InputError naming every choice."""
    if name not in (names := list(table)):
        raise InputError(f"{kind} {name!r}", f"one of {', '.join(names)}", f"name a known {kind}")
    return name


@contextmanager
def reading(path: str | Path, wanted: str, remedy: str) -> Iterator[None]:
    """The border of a file's readers: what they raise becomes an InputError with the file's name.

    Readers take a file's layout for granted, and a damaged file can make them raise anything. An
    InputError of theirs is kept; the file's name is put before it where it lacks it.
    """
    try:
        yield
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: {error.got}", error.wanted, error.remedy) from error
    except Exception as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise InputError(f"{path}, which cannot be read ({reason})", wanted, remedy) from error
