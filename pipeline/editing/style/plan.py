"""What a study of local transfers edits: parts and pairs."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from pipeline.runtime.errors import InputError

KINDS = ("trained", "control")
SMALLEST = 0.002  # a part is shown by a mask from this share of its pixels on


def class_groups(
    classes: Sequence[str], parts: Mapping[str, Sequence[str]]
) -> dict[str, list[int]]:
    """Ids of every class but 0 by itself, and of the parts."""
    found = {name: [i] for i, name in enumerate(classes) if i}
    for part, members in parts.items():
        if unknown := [name for name in members if name not in classes]:
            raise InputError(
                f"class {unknown[0]!r} of part {part}",
                f"one of {', '.join(classes)}",
                "change edit_style.parts",
            )
        if part in found and found[part] != [classes.index(name) for name in members]:
            raise InputError(f"part {part!r}, which is a class", "another name", "rename the part")
        found[part] = [classes.index(name) for name in members]
    return found


def choose_pairs(
    masks: UInt8[np.ndarray, "sample size size"], parts: Mapping[str, Sequence[int]], count: int
) -> list[tuple[int, int]]:
    """(target, reference) rows: the first samples that show every part, each with the next one."""
    shows = [np.isin(masks, ids).mean((1, 2)) >= SMALLEST for ids in parts.values()]
    rows = np.flatnonzero(np.all(shows, 0))[:count].tolist()
    if len(rows) < 2:
        raise InputError(
            f"{len(rows)} test samples that show {', '.join(parts)}",
            "at least 2",
            "raise the size of the test split, or name other parts",
        )
    return list(zip(rows, rows[1:] + rows[:1], strict=True))
