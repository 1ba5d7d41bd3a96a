"""Semantic Image Editing (Xu & Zheng, CVPR 2021): tables of its scores, and their figure 5."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.data.arrays import Group
from pipeline.reporting.figures import Column, grid_figure
from pipeline.reporting.palette import colorize
from pipeline.reporting.tables import Metrics

TITLES = {
    "color": "color editing",
    "teacher": "SIE (teacher)",
    "fewshot": "SIE (few-shot LSE)",
    "full": "SIE (full LSE)",
}


EDITING = "editing"  # the file of scores
METHODS = {
    "none": "unedited",
    "color": "color",
    "teacher": "teacher",
    "fewshot": "few-shot LSE",
    "full": "full LSE",
}
# Score -> column and what to multiply by: IoU and rates are fractions in the file.
COLUMNS = {
    "iou_region_judge": ("region IoU, judge", 100),
    "iou_region_teacher": ("region IoU, teacher", 100),
    "iou_kept_judge": ("kept IoU, judge", 100),
    "lab_outside": ("CIELAB change outside", 1),
    "success": ("success, %", 100),
}

SCORES_NOTE = """In %, mean over edits; in parentheses the 95 % bootstrap interval over edits. Read
the judge's columns: the target is the teacher's own mask with the edit drawn in, so the teacher in
the loop optimizes what the column "teacher" measures, and favors itself there. Region IoU: mean
over the classes that the target shows in the edited region, of its pixels; the row "unedited" is
where every method starts. Kept IoU: the judge's masks before and after, outside the region. CIELAB
change: mean distance (CIE76) of the pixels outside the region; 2.3 is just noticeable. Success:
region IoU and CIELAB change both within the limits in params.yaml."""

EDITS_NOTE = f"""{SCORES_NOTE} The paper shows pictures only."""

TRANSFER_NOTE = f"""{SCORES_NOTE} The change of the latents that an edit's first sample needed is
added to the edit's other samples, unchanged and with no search: what is left is what the vector
means by itself."""

DIFFERENCES_NOTE = """A method's score minus that of the teacher in the loop, on the same edits and
samples: points of %, or CIELAB units. In parentheses the 95 % bootstrap interval of the paired
difference; one that contains 0 tells no difference. Read the judge's columns: the teacher in the
loop favors itself in the column "teacher"."""

KINDS_NOTE = """Region IoU in %, by the judge: mean over the samples of an edit, which are few. A
method does something where it exceeds "unedited". The teacher in the loop may have the first of the
samples alone: see its count in the table of edits."""


def all_tables(metrics: Metrics) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """(file name, title, note, table) of each table."""
    yield "edits", "Semantic image editing", EDITS_NOTE, edits_table(metrics)
    title = "Edits added to other samples"
    yield "edits_transfer", title, TRANSFER_NOTE, transfer_table(metrics)
    title = "Edits, minus the teacher's"
    yield "edits_differences", title, DIFFERENCES_NOTE, differences_table(metrics)
    yield "edits_kinds", "Edits by kind", KINDS_NOTE, kinds_table(metrics)


def edits_table(metrics: Metrics) -> pd.DataFrame:
    """A row a study and method, and one of the samples as they were."""
    return pd.DataFrame(
        row
        for study, files in metrics.items()
        for kind in ("unedited", "edited")
        for row in _rows(study, files.get(EDITING, {}).get(kind, {}))
    )


def transfer_table(metrics: Metrics) -> pd.DataFrame:
    """A row a study and method: the first sample's vectors on an edit's other samples."""
    return pd.DataFrame(
        row
        for study, files in metrics.items()
        for row in _rows(study, files.get(EDITING, {}).get("transferred", {}))
    )


def differences_table(metrics: Metrics) -> pd.DataFrame:
    """A row a study and method: paired differences to the teacher in the loop."""
    return pd.DataFrame(
        row
        for study, files in metrics.items()
        for row in _rows(study, files.get(EDITING, {}).get("paired", {}))
    )


def kinds_table(metrics: Metrics) -> pd.DataFrame:
    """A row a study and edit: region IoU by the judge, of every method."""
    rows = []
    for study, files in metrics.items():
        found = files.get(EDITING, {})
        for edit, scores in found.get("by_edit", {}).items():
            row = {"study": study, "edit": edit.replace("_", " ")}
            row["samples"] = found["samples"][edit]["found"]
            rows.append(row | {METHODS.get(m, m): 100 * scores[m] for m in _in_order(scores)})
    return pd.DataFrame(rows)


def _in_order(found: Mapping) -> list[str]:
    """Methods in the order of METHODS, others last; `x - y` stands where x does."""
    order = list(METHODS)
    rank = {m: order.index(f) if (f := m.split(" - ")[0]) in order else 99 for m in found}
    return sorted(found, key=rank.__getitem__)


def _rows(study: str, found: Mapping[str, Mapping]) -> Iterator[dict]:
    for method in _in_order(found):
        scores = found[method]
        words = [METHODS.get(part, part) for part in method.split(" - ")]
        row = {"study": study, "method": " minus ".join(words)}
        if "count" in scores:
            row["edits"] = scores["count"]
        for score, (column, factor) in COLUMNS.items():
            for end in ("mean", "low", "high") if score in scores else ():
                name = column if end == "mean" else f"{column} {end}"
                row[name] = factor * scores[score][end]
        yield row


def draw_study(pictures: Path, figure: Path, most: int) -> None:
    """Figure 5 from what measure_editing wrote: the first case of each edit, at most so many."""
    group = Group(pictures)
    shown = one_case_an_edit(group.attributes["cases"], most)
    names = [("cases", name) for name in ("images", "masks", "strokes", "targets")]
    names += [(m, name) for m in group.attributes["methods"] for name in ("images", "masks")]
    editing_figure(
        figure,
        {f"{split}/{name}": group.read(split, name)[shown] for split, name in names},
        [group.attributes["cases"][i] for i in shown],
        group.attributes["methods"],
        group.attributes["classes"],
    )


def editing_figure(
    path: Path,
    arrays: Mapping[str, np.ndarray],  # {group/name: [case, ...]}, as measure_editing writes them
    cases: Sequence[Sequence],  # edit, row, seed of each
    methods: Sequence[str],
    classes: list[str],
) -> None:
    """Draw a row an edit: original, strokes, target, then each method's image and judge's mask."""
    rows = [f"{edit.replace('_', ' ')}\ntest {row}" for edit, row, _ in cases]
    grid_figure(path, _columns(arrays, methods, classes), rows, classes)


def _columns(
    arrays: Mapping[str, np.ndarray], methods: Sequence[str], classes: list[str]
) -> list[Column]:
    """Columns of pictures [case, H, W, 3] from left to right."""

    def image(name: str) -> np.ndarray:
        return arrays[name].transpose(0, 2, 3, 1)

    found = [
        Column("original", image("cases/images")),
        Column("its mask", colorize(arrays["cases/masks"], classes)),
        Column("color strokes", image("cases/strokes")),
        Column("target mask", colorize(arrays["cases/targets"], classes)),
    ]
    for method in methods:
        found.append(Column(TITLES.get(method, method), image(f"{method}/images")))
        found.append(Column("judge's mask", colorize(arrays[f"{method}/masks"], classes)))
    return found


def one_case_an_edit(cases: Sequence[Sequence], most: int) -> list[int]:
    """Indices of the first case of each edit, at most so many: the rule of the figure's rows."""
    first: dict[str, int] = {}
    for i, (edit, *_) in enumerate(cases):
        first.setdefault(edit, i)
    return list(first.values())[:most]
