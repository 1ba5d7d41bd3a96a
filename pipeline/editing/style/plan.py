"""What a study of local transfers edits: parts, pairs, methods and their strengths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import UInt8

from pipeline.editing.style.catalog import ClusterRule
from pipeline.editing.style.registry import METHODS
from pipeline.runtime.errors import InputError

KINDS = ("trained", "control")
SMALLEST = 0.002  # a part is shown by a mask from this share of its pixels on


@dataclass(frozen=True)
class Plan:
    """Sizes and strengths of a study."""

    parts: Mapping[str, tuple[str, ...]]  # classes of each part
    pairs: int = 8
    samples: int = 16  # of the training split, that contributions are measured on
    strengths: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # of each method
    threshold: float = 0.0  # of M, for sequential queries: rho / (1 + rho)
    coarse_share: float = 1.0  # of epsilon, up to 8 px
    resampling: str = "bilinear"
    matched_share: float = 0.25  # of the reference's In-MSE, where methods are compared
    seed: int = 0  # of the control's weights

    def keys(self, kind: str, parts: Sequence[str]) -> list[tuple[str, str, float]]:
        """(part, method, strength) of every edit of a pair."""
        methods = {
            m: s for m, s in self.strengths.items() if kind == "trained" or METHODS[m].control
        }
        return [(p, m, s) for p in parts for m, values in methods.items() for s in values]


def at_paper_sizes(plan: Plan, rule: ClusterRule) -> tuple[Plan, ClusterRule]:
    """The paper's N = 200 and layer for clusters and contributions, and enough pairs for means."""
    rule = replace(rule, resolutions=(32,), counts=(20,), samples=200, restarts=10)
    return replace(plan, pairs=100, samples=200), rule


def strengths(
    epsilons: Sequence[float], lambdas: Sequence[float], interpolations: Sequence[float]
) -> dict[str, tuple[float, ...]]:
    """Strengths of every method."""
    lists = {"epsilons": epsilons, "lambdas": lambdas, "interpolations": interpolations}
    lists["once"] = [1.0]
    return {name: tuple(map(float, lists[one.strengths])) for name, one in METHODS.items()}


def parse_parts(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """`eyes=eye,brow` and so on to {part: classes}."""
    found = {}
    for text in texts:
        name, _, members = text.partition("=")
        if not name or not members or name in found:
            raise InputError(f"part {text!r}", "name=class,class of a new name", "change parts")
        found[name] = tuple(members.split(","))
    return found


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
