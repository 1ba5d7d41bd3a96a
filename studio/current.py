"""The current extractor, as the web process knows it: which fit it is of, and what comes next."""

import threading
from collections.abc import Callable
from concurrent.futures import Future

from studio.drawings import Drawings
from studio.events import Events
from studio.lanes import Lane, Task
from studio.refusals import Cancelled

IDLE = 2.0  # seconds after the last stroke, before a settled fit begins by itself
LIVE, LOOK, FIT, REST = 0, 1, 2, 3  # priorities of the quick lane, first things first


class Current:
    """Live fits after strokes, settled ones as jobs; both are made by the quick lane, in order."""

    def __init__(
        self,
        lane: Lane,
        drawings: Drawings,
        events: Events,
        settled: dict[int, str] | None,  # {row: revision} that the saved extractor was fitted to
        on_idle: Callable[[], None],
    ):
        self.lane, self.drawings, self.events = lane, drawings, events
        self.settled, self.on_idle = settled, on_idle
        self.version, self.state = 1, "full"
        self.suggested: list[int] = []
        self.timer: threading.Timer | None = None
        self.recover()
        self._describe(0)

    @property
    def title(self) -> str:
        """What guides edits from here on, in words."""
        num = len(self.drawings.masks)
        if not num:
            return "LSE of many samples that the teacher labelled"
        return f"few-shot LSE of {num} sample{'s' * (num != 1)} annotated here"

    def facts(self) -> dict:
        """As the session shows it."""
        masks = self.drawings.masks
        return {
            "version": self.version,
            "state": self.state,
            "samples": len(masks),
            "pixels": sum(self.drawings.labelled(row) for row in list(masks)),
            "title": self.title,
            "suggested": self.suggested,
        }

    @property
    def is_settled(self) -> bool:
        """Whether the saved extractor is of all that is drawn; so it is if nothing is."""
        revisions = self.drawings.revisions()
        return not revisions or self.settled == revisions

    def recover(self) -> None:
        """What a new process of the quick lane has to know."""
        if self.drawings.masks and self.is_settled:
            self._after(self.lane.submit("reload", {}, LIVE), "settled")
        elif self.drawings.masks:
            self.stroke()

    def stroke(self) -> None:
        """Go on to what has been drawn: a live fit now, a settled one when nothing more comes."""
        self.stop()
        if not self.drawings.masks:
            self.settled = None
            self._after(self.lane.submit("forget", {}, LIVE, "live"), "full")
            return
        masks = dict(self.drawings.masks)
        self._after(self.lane.submit("live", {"masks": masks}, LIVE, "live"), "live")
        self.timer = threading.Timer(IDLE, self.on_idle)
        self.timer.daemon = True
        self.timer.start()

    def stop(self) -> None:
        """No settled fit by itself."""
        if self.timer:
            self.timer.cancel()

    def fitted(self, revisions: dict[int, str]) -> None:
        """A settled fit of these annotations is done."""
        self.settled = revisions
        self._changed("settled" if self.is_settled else "live")
        self.suggest()

    def suggest(self) -> None:
        """Look again for what to annotate next."""
        annotated = set(self.drawings.masks)
        task = self.lane.submit("suggest", {"annotated": annotated}, REST, "suggest")

        def told(future: Future) -> None:
            if future.exception() is None and future.result() != self.suggested:
                self.suggested = future.result()
                self.events.add("extractor", self.facts())

        task.future.add_done_callback(told)

    def _after(self, task: Task, state: str) -> None:
        """Tell of a new extractor once the lane has it."""

        def done(future: Future) -> None:
            if future.exception() is None:
                self._changed(state)
            elif not isinstance(future.exception(), Cancelled):
                print(f"studio: {future.exception()}", flush=True)

        task.future.add_done_callback(done)

    def _changed(self, state: str) -> None:
        self.version, self.state = self.version + 1, state
        self.events.add("extractor", self.facts())

    def _describe(self, row: int) -> None:
        """One row of the pool after the other, while nothing else is to be done."""
        if row == len(self.drawings.pool.seeds):
            self.suggest()
            return
        task = self.lane.submit("describe", {"row": row}, REST)

        def done(future: Future) -> None:
            if future.exception() is None:
                self._describe(row + 1)

        task.future.add_done_callback(done)
