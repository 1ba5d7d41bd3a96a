"""Options of stages: frozen dataclasses whose fields are named as in params.yaml.

An options class stands beside the code that reads it, in a module without slow imports. The comment
of a field is its meaning and unit, and its text in `--help`. A field may be such a class itself.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

FIELD = re.compile(r"^\s+(\w+): [^#]*?(?:#\s*(.+))?$")
COMMENT = re.compile(r"^\s+#\s*(.+)$")


@cache
def comments(thing: type | Callable) -> dict[str, str]:
    """{name: comment} of the fields of a class and its bases, or of a function's parameters.

    A comment stands behind a field, or on lines of its own directly above it.
    """
    found: dict[str, str] = {}
    above: list[str] = []
    for base in thing.__mro__[1:-1] if isinstance(thing, type) else ():
        found |= comments(base)
    for line in inspect.getsource(thing).splitlines():
        if match := COMMENT.match(line):
            above.append(match[1])
            continue
        if match := FIELD.match(line):
            text = match[2] or " ".join(above)
            found |= {match[1]: text} if text else {}
        above = []
    return found


@dataclass(frozen=True)
class Device:
    """Where a stage computes."""

    device: str = "auto"  # auto, cpu or cuda[:i]; auto: the first CUDA device if there is one


@dataclass(frozen=True)
class Processes(Device):
    """Where a stage computes, and in how many processes."""

    workers: int = 0  # one-thread processes; 0: one per core


@dataclass(frozen=True)
class Synthesis(Device):
    """Where a stage synthesizes images, and in which dtype."""

    compute: str = "auto"  # dtype of synthesis: float32, bfloat16, or auto: bfloat16 where fast


@dataclass(frozen=True)
class Machine(Synthesis, Processes):
    """Where a stage synthesizes images, in which dtype and how many processes."""
