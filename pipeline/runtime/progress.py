"""Progress for long loops: a bar on a terminal, a log line every 30 s otherwise."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
LOG_SECONDS = 30.0


def track(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """Yield `items`, reporting on stderr how many of `total` are done; `what` names the work."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track as bar

        yield from bar(items, what, total, console=Console(stderr=True))
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= LOG_SECONDS or (done == total and now - start >= LOG_SECONDS):
            last = now
            say(f"{what}: {done}/{total}, {now - start:.0f} s")


def say(line: str) -> None:
    """Print one line of log on stderr at once."""
    print(line, file=sys.stderr, flush=True)
