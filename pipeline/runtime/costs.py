"""What a call costs."""

import os
import time
from collections.abc import Callable
from typing import Any


def timed(function: Callable, *arguments: object) -> tuple[Any, dict]:
    """A call's result, and its seconds of this process and of the workers that it waited for."""
    start, cpu = time.perf_counter(), _cpu_seconds()
    result = function(*arguments)
    return result, {
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(_cpu_seconds() - cpu, 1),
    }


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
