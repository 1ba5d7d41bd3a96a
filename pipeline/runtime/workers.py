"""Run tasks in order, in this process or in several one-thread processes."""

import ctypes
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from pipeline.runtime.errors import InputError
from pipeline.runtime.lifelines import die_at_once, end_with_parent
from pipeline.runtime.progress import track

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc malloc.h

Task = TypeVar("Task")
Result = TypeVar("Result")


def count(workers: int, device: str, tasks: int) -> int:
    """How many processes to use: `workers`, or for 0 one a core (one in all on a GPU)."""
    if workers < 0:
        raise InputError(f"workers {workers}", "0 (one a core) or more", "change workers")
    if device != "cpu":
        return 1
    return max(1, min(workers or len(os.sched_getaffinity(0)), tasks))


def run(
    function: Callable[[Task], Result],  # a module-level function: it is pickled by name
    tasks: Sequence[Task],
    what: str,  # names the work in the progress line
    workers: int,
) -> Iterator[Result]:
    """Yield function(task) for every task, in order.

    Two one-thread processes beat one process of two threads on contended cores by far, so the
    worker processes use a single thread each.
    """
    keep_freed_memory()
    if workers <= 1:
        yield from track(map(function, tasks), what, len(tasks))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_begin) as pool:
        try:
            yield from track(pool.map(function, tasks), what, len(tasks))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def keep_freed_memory() -> None:
    """Tell glibc to reuse freed memory instead of returning it: no page faults for every map.

    Feature maps are tens of MB each, and the kernel zeroes every page that it hands out again.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            libc.mallopt(option, 2**30)
    except (OSError, AttributeError):  # another libc: slower, not wrong
        pass


def _begin() -> None:
    """Make a new process a worker of one thread, which ends with its parent."""
    end_with_parent()
    die_at_once()
    import torch

    keep_freed_memory()
    torch.set_num_threads(1)
