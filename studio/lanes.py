"""Two processes of one thread that compute, and the queues before them.

What a lane computes is a method of `studio.compute.worker.Worker`; only its process imports torch.
"""

import itertools
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from pipeline.runtime.errors import InputError
from studio.place import Place
from studio.refusals import Cancelled, Restarting

GRACE = 5.0  # seconds that a cancelled task has before its process is killed


@dataclass(order=True)
class Task:
    """One call of a method of the worker."""

    priority: int  # less is sooner
    number: int
    method: str = field(compare=False)
    arguments: dict = field(compare=False)
    on_progress: Callable[[Any], None] | None = field(compare=False, default=None)
    on_start: Callable[[], None] | None = field(compare=False, default=None)
    # A waiting task of the same key gives way to a newer one.
    key: str | None = field(compare=False, default=None)
    future: Future = field(compare=False, default_factory=Future)


class Lane:
    """A process, its queue, and the thread that feeds it."""

    def __init__(self, name: str, place: Place, on_restart: Callable[[str], None]):
        self.name, self.place, self.on_restart = name, place, on_restart
        self.context = multiprocessing.get_context("spawn")
        self.cancelled = self.context.RawValue("q", 0)  # number of the task to give up
        self.waiting: list[Task] = []
        self.current: Task | None = None
        self.change = threading.Condition()
        self.numbers = itertools.count(1)
        self.closed = False
        self.process, self.connection = self._begun()
        self.thread = threading.Thread(target=self._feed, name=f"lane {name}", daemon=True)
        self.thread.start()

    def submit(
        self,
        method: str,
        arguments: dict,
        priority: int = 0,
        key: str | None = None,
        on_progress: Callable[[Any], None] | None = None,
        on_start: Callable[[], None] | None = None,
    ) -> Task:
        """Queue a call of the worker; its future gives what it returns."""
        number = next(self.numbers)
        task = Task(priority, number, method, arguments, on_progress, on_start, key)
        task.future.set_running_or_notify_cancel()  # nobody but the lane ends it
        with self.change:
            if self.closed:
                raise Restarting("a lane that is closed", "a running one", "start the studio again")
            old = [t for t in self.waiting if key is not None and t.key == key]
            self.waiting = [t for t in self.waiting if t not in old] + [task]
            self.change.notify()
        _give_up(old)
        return task

    def cancel(self, task: Task) -> None:
        """Give a task up; Cancelled is what its future raises."""
        with self.change:
            was_waiting = task in self.waiting
            if was_waiting:
                self.waiting.remove(task)
            elif task is self.current:
                self.cancelled.value = task.number
                timer = threading.Timer(GRACE, self._kill, [task])
                timer.daemon = True
                timer.start()
        if was_waiting:
            _give_up([task])

    def close(self) -> None:
        """End the process and whatever it does."""
        with self.change:
            self.closed = True
            left, self.waiting = self.waiting, []
            self.change.notify()
            self.process.kill()
        _give_up(left)
        self.thread.join()

    def _kill(self, task: Task) -> None:
        with self.change:
            if task is self.current:
                self.process.kill()

    def _begun(self) -> tuple[SpawnProcess, Connection]:
        ours, theirs = self.context.Pipe()
        arguments = theirs, self.cancelled, self.place
        process = self.context.Process(target=run_lane, args=arguments, daemon=True)
        process.start()
        theirs.close()
        return process, ours

    def _feed(self) -> None:
        """The thread: hand tasks over one by one, and start the process anew when it dies."""
        failed = 0
        while task := self._next():
            if task.on_start:
                task.on_start()
            try:
                self.connection.send((task.number, task.method, task.arguments))
                self._answer(task)
                failed = 0
            except (EOFError, OSError):
                failed += 1
                self._bury(task)
                time.sleep(min(failed - 1, 5))

    def _next(self) -> Task | None:
        with self.change:
            self.current = None
            while not self.waiting and not self.closed:
                self.change.wait()
            if self.closed:
                return None
            self.current = min(self.waiting)
            self.waiting.remove(self.current)
            return self.current

    def _answer(self, task: Task) -> None:
        """Pass on what the process says of a task, to its end; EOFError if it dies."""
        while True:
            if self.connection not in wait([self.connection, self.process.sentinel]):
                raise EOFError
            kind, value = self.connection.recv()
            if kind == "progress":
                if task.on_progress:
                    task.on_progress(value)
                continue
            with self.change:
                self.current = None
            if kind == "done":
                task.future.set_result(value)
            else:
                task.future.set_exception(
                    Cancelled() if kind == "cancelled" else InputError(*value)
                )
            return

    def _bury(self, task: Task) -> None:
        """Fail the task of a process that died, and start the next process."""
        with self.change:
            was_cancelled = self.cancelled.value == task.number
            self.process.join(1)
            if not self.closed:
                self.process, self.connection = self._begun()
        error = InputError(
            "a compute process that died (killed, or out of memory)",
            "it to finish",
            "try again; all strokes are kept",
        )
        task.future.set_exception(Cancelled() if was_cancelled or self.closed else error)
        if not self.closed:
            self.on_restart(self.name)


def _give_up(tasks: list[Task]) -> None:
    """End tasks that wait; outside of the lane's lock, since those who wait for them may queue."""
    for task in tasks:
        task.future.set_exception(Cancelled())


def run_lane(connection: Connection, cancelled: Any, place: Place) -> None:
    """The process: answer calls until the server is gone."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    from studio.compute.worker import Worker

    worker = Worker(place)
    while True:
        try:
            number, method, arguments = connection.recv()
        except (EOFError, OSError):
            return

        def report(value: Any, number: int = number) -> None:
            """Tell of progress; Cancelled if the task is not wanted any more."""
            if cancelled.value == number:
                raise Cancelled
            if value is not None:
                connection.send(("progress", value))

        connection.send(_outcome(worker, method, arguments, report))


def _outcome(worker: Any, method: str, arguments: dict, report: Callable) -> tuple[str, Any]:
    try:
        return "done", getattr(worker, method)(report=report, **arguments)
    except Cancelled:
        return "cancelled", None
    except InputError as error:
        return "failed", (error.got, error.wanted, error.remedy)
    except OSError as error:
        return "failed", (
            f"an error of the disk ({error})",
            "files that can be written",
            "make room",
        )
    except Exception as error:  # a bug of ours must not end the session
        import traceback

        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"[:300]
        return "failed", (reason, "no such error", "see the terminal; all strokes are kept")


def _die_with_parent() -> None:
    """A killed server leaves nothing behind that writes or computes."""
    if parent := multiprocessing.parent_process():
        wait([parent.sentinel])
    os._exit(1)
