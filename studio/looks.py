"""Pictures and masks of samples, from memory where they have been asked for before."""

import threading
from collections import OrderedDict
from concurrent.futures import Future

from studio.lanes import Lane
from studio.samples import Sample

KINDS = ("image", "preview", "mask")
KEPT_BYTES = 64 * 2**20

Key = tuple[Sample, str, int]


class Looks:
    """What the quick lane has shown, the last ones kept."""

    def __init__(self, lane: Lane, priority: int):
        self.lane, self.priority = lane, priority
        self.kept: OrderedDict[Key, Future] = OrderedDict()
        self.lock = threading.Lock()

    def get(self, sample: Sample, kind: str, version: int) -> Future:
        """The bytes to come of a look; `version` of the extractor counts for masks."""
        key = sample, kind, version if kind == "mask" else 0
        with self.lock:
            if key not in self.kept:
                arguments = {"sample": sample, "kind": kind}
                priority = self.priority + (kind == "image")
                self.kept[key] = self.lane.submit("look", arguments, priority).future
            self.kept.move_to_end(key)
            found = self.kept[key]
        found.add_done_callback(lambda future: self._tidy(key, future))
        return found

    def _tidy(self, key: Key, future: Future) -> None:
        """Forget what failed, and the oldest beyond the limit."""
        with self.lock:
            if future.cancelled() or future.exception() is not None:
                self.kept.pop(key, None)
            done = [k for k, one in self.kept.items() if one.done() and not one.exception()]
            total = sum(len(self.kept[k].result()) for k in done)
            for old in done:
                if total <= KEPT_BYTES:
                    break
                total -= len(self.kept.pop(old).result())
