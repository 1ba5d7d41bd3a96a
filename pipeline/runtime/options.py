"""Options: frozen dataclasses whose fields are the values of a section of params.yaml.

An options class stands beside the code that reads it, in a module without slow imports. The comment
of a field is its meaning and unit, and the text of `--help`.
"""

import inspect
import re
from dataclasses import dataclass

FIELD = re.compile(r"^\s+(\w+): [^#]*#\s*(.+)$")
COMMENT = re.compile(r"^\s+#\s*(.+)$")


@dataclass(frozen=True)
class Machine:
    """Where and how a stage computes."""

    device: str  # auto, cpu or cuda[:i]; auto: the first CUDA device if there is one
    compute: str = "auto"  # dtype of synthesis: float32, bfloat16, or auto: bfloat16 where fast
    workers: int = 0  # one-thread processes; 0: one per core


def comments(thing: type | object) -> dict[str, str]:
    """{name: comment} of the fields of a class, or of the parameters of a function, in its source.

    A comment stands behind a field, or on lines of its own directly above it.
    """
    found, above = {}, []
    for line in inspect.getsource(thing).splitlines():
        if match := COMMENT.match(line):
            above.append(match[1])
        elif match := FIELD.match(line):
            found[match[1]] = match[2]
            above = []
        else:
            if above and (name := re.match(r"^\s+(\w+):", line)):
                found[name[1]] = " ".join(above)
            above = []
    return found
