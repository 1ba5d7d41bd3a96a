"""Processes that end with those that they work for, however these die.

A killed parent cannot stop its children, so a child watches its parent: a worker its stage, a stage
the `dvc` and the run that started it. What was finished is in files by then, and the next run goes
on behind it.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import connection
from pathlib import Path

PERIOD = 0.5  # seconds between two looks
PR_SET_PDEATHSIG = 1  # prctl.h
RUN = "PIPELINE_RUN"  # environment variable: process id of the run that started a stage


def end_with_parent() -> None:
    """In a worker process: end as soon as the process that spawned it has ended."""
    if parent := multiprocessing.parent_process():
        with contextlib.suppress(OSError, AttributeError):  # Linux: inside an operation, too
            ctypes.CDLL("libc.so.6").prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _watch(lambda: connection.wait([parent.sentinel]))


def end_with_run() -> None:
    """In a stage: end when the `dvc` that runs it has ended, or the run that started that one.

    A stage that a person started by hand goes on when their terminal closes, as programs do.
    """
    chain, run = _ancestors(), os.environ.get(RUN)
    if chain and run and all(str(parent) != run for _, parent in chain):
        os._exit(1)  # the run ended before this process began
    if watched := [(pid, parent) for pid, parent in chain if str(parent) == run or _is_run(parent)]:
        _watch(lambda: _until_orphaned(watched))


def die_at_once() -> None:
    """In a stage: SIGINT and SIGTERM end it as they are, inside a long operation, too.

    Python would wait for the operation. A shell that starts a program in the background makes it
    ignore SIGINT, so that is undone. Unfinished files have names of their own and are made again.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def _watch(wait: Callable[[], object]) -> None:
    """End this process when `wait` returns."""

    def end() -> None:
        wait()
        os._exit(1)

    threading.Thread(target=end, daemon=True, name="lifeline").start()


def _until_orphaned(watched: list[tuple[int, int]]) -> None:
    while all(_parent(pid) == parent for pid, parent in watched):
        time.sleep(PERIOD)


def _ancestors() -> list[tuple[int, int]]:
    """(process, its parent), from this process upwards; empty where there is no /proc."""
    chain, pid = [], os.getpid()
    while parent := _parent(pid):
        chain.append((pid, parent))
        pid = parent
    return chain


def _parent(pid: int) -> int:
    """The parent of a process; 0 if there is none, or it cannot be told."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _is_run(pid: int) -> bool:
    """Whether a process is a `dvc` or a `make`."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(Path(os.fsdecode(word)).name in ("dvc", "make") for word in words[:3])
