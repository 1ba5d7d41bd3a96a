"""What happens in a session, numbered, for any number of readers."""

import asyncio
import itertools
import secrets
import threading
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

LENGTH = 1000  # events that a reader may be behind


@dataclass(frozen=True)
class Event:
    """One event: its number, its name, and a JSON object."""

    number: int
    name: str
    data: Mapping


class Events:
    """The last events of this run of the server. Threads add, asynchronous readers follow."""

    def __init__(self) -> None:
        self.run = secrets.token_hex(4)  # an event of another run is no event of this one
        self.kept: deque[Event] = deque(maxlen=LENGTH)
        self.numbers = itertools.count(1)
        self.lock = threading.Lock()
        self.readers: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    @property
    def last(self) -> str:
        """The id of the last event."""
        return self.id(self.kept[-1].number if self.kept else 0)

    def id(self, number: int) -> str:
        """An event's id for readers."""
        return f"{self.run}-{number}"

    def add(self, name: str, data: Mapping) -> None:
        """Tell all readers."""
        with self.lock:
            self.kept.append(Event(next(self.numbers), name, data))
            for reader, loop in self.readers.items():
                if not loop.is_closed():
                    loop.call_soon_threadsafe(reader.set)

    async def follow(self, after: str | None, seconds: float) -> AsyncIterator[Event | None]:
        """Events behind the one with id `after`, then each new one; None after `seconds` of none.

        The first one is `reset` if some between are not kept any more. Of progress that piled up,
        only the latest of each job comes.
        """
        wake = asyncio.Event()
        with self.lock:
            self.readers[wake] = asyncio.get_running_loop()
        try:
            position = self._position(after)
            if position is None:
                position = self.kept[-1].number if self.kept else 0
                yield Event(position, "reset", {})
            while True:
                wake.clear()
                with self.lock:
                    behind = [event for event in self.kept if event.number > position]
                for event in _thinned(behind):
                    position = event.number
                    yield event
                if behind:
                    continue
                try:
                    await asyncio.wait_for(wake.wait(), seconds)
                except TimeoutError:
                    yield None
        finally:
            with self.lock:
                del self.readers[wake]

    def _position(self, after: str | None) -> int | None:
        """The number behind which a reader goes on; None if it has missed some."""
        run, _, number = (after or self.last).partition("-")
        if run != self.run or not number.isdecimal():
            return None
        oldest = self.kept[0].number if self.kept else 1
        return int(number) if int(number) >= oldest - 1 else None


def _thinned(events: list[Event]) -> list[Event]:
    """Without progress that a later event of the same job overtakes."""
    last = {event.data.get("id"): event.number for event in events if "id" in event.data}
    return [
        event
        for event in events
        if event.name != "progress" or last[event.data["id"]] == event.number
    ]
