"""Which classes an extractor can be asked for: category selection (appendix E of Xu & Zheng)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.runtime.errors import InputError, choose
from pipeline.runtime.files import read_json

PROTOCOLS = ("miou_per_image", "miou_dataset")


@dataclass(frozen=True)
class Selection:
    """Classes kept and dropped, in the label space's order, without class 0 (always kept)."""

    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    best: dict[str, float | None]  # per class: the highest IoU of any extractor, percent


def select_categories(
    scores: Mapping[str, Mapping[str, float | None]],  # extractor -> class -> IoU, percent
    threshold: float,  # percent
) -> Selection:
    """Keep every class that any extractor predicts with an IoU above `threshold`.

    Class 0 is no category and must not be among `scores`; a class that occurs in no image (None)
    is dropped.
    """
    if not scores:
        raise InputError("no extractor", "the scores of at least one", "evaluate an extractor")
    classes = list(next(iter(scores.values())))
    for name, per_class in scores.items():
        if list(per_class) != classes:
            raise InputError(
                f"scores of {name} on classes {', '.join(per_class)}",
                f"the classes of the others: {', '.join(classes)}",
                "evaluate all extractors on the same labels",
            )
    best: dict[str, float | None] = {}
    for c in classes:
        found = [v for per_class in scores.values() if (v := per_class[c]) is not None]
        best[c] = max(found, default=None)
    kept = tuple(c for c, iou in best.items() if iou is not None and iou > threshold)
    if not kept:
        top = max((v for v in best.values() if v is not None), default=0.0)
        raise InputError(
            f"no class above an IoU of {threshold:g} % (the best has {top:.1f} %)",
            "at least one",
            "lower select_categories.threshold, or fit on more samples",
        )
    return Selection(kept, tuple(c for c in classes if c not in kept), best)


def read_scores(
    evaluations: Path,  # folder of <extractor>.json, as evaluate_extractor writes them
    classes: Sequence[str],
    protocol: str,
) -> dict[str, dict[str, float | None]]:
    """{extractor: {class: IoU against the teacher, percent}} of every evaluation in a folder."""
    choose("protocol", protocol, PROTOCOLS)
    scores = {}
    for path in sorted(evaluations.glob("*.json")):
        value = read_json(path).get("against_teacher")
        if value is None:  # the facts of a fit
            continue
        per_class = value[protocol]["per_class"]
        if missing := [c for c in classes if c not in per_class]:
            raise InputError(
                f"{path} without class {missing[0]}",
                f"scores of {', '.join(classes)}",
                "evaluate the extractor on the full label list",
            )
        scores[path.stem] = {c: per_class[c] for c in classes}
    return scores
