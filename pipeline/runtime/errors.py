"""The one exception for bad input: a sentence with what was given, what was wanted and a remedy."""

from collections.abc import Iterable


class InputError(ValueError):
    """Bad input from a user. Stages print it as one line and exit with status 2."""

    def __init__(self, got: str, wanted: str, remedy: str):
        super().__init__(f"got {got}; wanted {wanted}; {remedy}")
        self.got, self.wanted, self.remedy = got, wanted, remedy


def choose(kind: str, name: str, table: Iterable[str]) -> str:
    """Return `name` if it is a key of `table`, else raise InputError naming every choice."""
    if name not in (names := list(table)):
        raise InputError(f"{kind} {name!r}", f"one of {', '.join(names)}", f"name a known {kind}")
    return name
