"""A study of scripted edits: every method on every case, scores, and vectors for other samples."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from pipeline.data.arrays import write_group
from pipeline.data.mask_files import write_mask
from pipeline.editing.semantic.cases import (
    Case,
    Samples,
    Setup,
    choose_cases,
    make_case,
    render,
    segment,
)
from pipeline.editing.semantic.edits import Edit
from pipeline.editing.semantic.options import Success
from pipeline.editing.semantic.outcomes import Outcome, edit_cases, edit_together, takes
from pipeline.editing.semantic.scores import kept_iou, lab_change, region_iou, summarize
from pipeline.runtime import workers
from pipeline.runtime.files import atomic, sha256, write_json
from pipeline.runtime.weights import write_safetensors


@dataclass(frozen=True)
class TransferTask:
    """A vector for another sample of the same edit."""

    setup: Setup
    ws: Float32[np.ndarray, "num_ws w_dim"]  # the other sample's, with the vector added


def _look(task: TransferTask) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    setup, images = task.setup, render(task.setup, torch.from_numpy(task.ws)[None])
    networks = setup.teacher, setup.judge or setup.teacher
    return images[0], *(segment(setup, path, images)[0] for path in networks)


@dataclass(frozen=True)
class Study:
    """What a study found, ready to be written."""

    report: dict
    costs: dict  # of a method's edits
    rows: list[dict]
    arrays: dict[str, np.ndarray]
    attributes: dict
    vectors: dict[str, Tensor]


def score(
    case: Case,
    image: np.ndarray,
    teacher_mask: np.ndarray,
    judge_masks: tuple[np.ndarray, np.ndarray],  # of the sample before and after
    success: Success,
) -> dict[str, float]:
    """How well an image shows what a case asks for."""
    target, (before, after) = case.target, judge_masks
    region = region_iou(after, target.mask, target.region)
    lab = lab_change(case.image, image, ~target.region)
    return {
        "iou_region_judge": region,
        "iou_region_teacher": region_iou(teacher_mask, target.mask, target.region),
        "iou_kept_judge": kept_iou(before, after, target.region),
        "lab_outside": lab,
        "success": float(region >= success.success_iou and lab <= success.success_lab),
    }


def score_study(
    setup: Setup,
    cases: Sequence[Case],
    outcomes: Mapping[tuple[int, str], Outcome],
    success: Success,
    num_workers: int = 0,
) -> list[dict]:
    """One row a case and method: unedited, edited, and with the first sample's vector added."""
    judge = setup.judge or setup.teacher
    before = [segment(setup, judge, case.image[None])[0] for case in cases]
    rows = []
    for i, case in enumerate(cases):
        found = score(case, case.image, case.own, (before[i], before[i]), success)
        rows.append(_row(case, "unedited", "none") | found)
    for (i, method), outcome in outcomes.items():
        masks = (before[i], outcome.judge_mask)
        found = score(cases[i], outcome.image, outcome.teacher_mask, masks, success)
        rows.append(_row(cases[i], "edited", method) | found)
    pairs = [p for m in setup.methods for p in transfers(cases, takes(setup, cases, m), m)]
    tasks = [
        TransferTask(setup, outcomes[i, m].before + outcomes[j, m].after - outcomes[j, m].before)
        for j, i, m in pairs
    ]
    processes = workers.count(num_workers, setup.device, len(tasks) or 1)
    looks = workers.run(_look, tasks, "transferring edits", processes)
    for (_, i, method), (image, teacher_mask, judge_mask) in zip(pairs, looks, strict=True):
        found = score(cases[i], image, teacher_mask, (before[i], judge_mask), success)
        rows.append(_row(cases[i], "transferred", method) | found)
    return rows


def mean_costs(outcomes: Mapping[tuple[int, str], Outcome]) -> dict[str, dict[str, float]]:
    """Seconds of an edit's search by each method, on the clock and of the processor."""
    found = {}
    for method in dict.fromkeys(method for _, method in outcomes):
        ours = [outcome for (_, name), outcome in outcomes.items() if name == method]
        found[f"an edit by {method}"] = {
            name: round(float(np.mean([getattr(one, name) for one in ours])), 3)
            for name in ("seconds", "cpu_seconds")
        }
    return found


def transfers(
    cases: Sequence[Case], taken: Sequence[int], method: str
) -> Iterator[tuple[int, int, str]]:
    """(giving case, taking case, method): an edit's first case gives to those `taken` after it."""
    first: dict[str, int] = {}
    for i in taken:
        giving = first.setdefault(cases[i].edit, i)
        if giving != i:
            yield giving, i, method


def _row(case: Case, kind: str, method: str) -> dict:
    share = round(float(case.target.region.mean()), 5)
    return {
        "edit": case.edit,
        "row": case.row,
        "seed": case.seed,
        "kind": kind,
        "method": method,
        "region": share,
    }


def arrays(
    cases: Sequence[Case], outcomes: Mapping[tuple[int, str], Outcome], methods: Sequence[str]
) -> dict[str, np.ndarray]:
    """Pictures of a study {`group/name`: [case, ...]}, at the size of masks; black: not edited."""

    def stack(get: Callable) -> np.ndarray:
        return np.stack([get(case) for case in cases])

    found = {
        "cases/images": stack(lambda case: case.image),
        "cases/strokes": stack(lambda case: case.stroke),
        "cases/masks": stack(lambda case: case.own),
        "cases/targets": stack(lambda case: case.target.mask),
        "cases/regions": stack(lambda case: case.target.region.astype(np.uint8)),
    }
    for method in methods:
        images, masks = np.zeros_like(found["cases/images"]), np.zeros_like(found["cases/masks"])
        for i in (i for i, m in outcomes if m == method):
            images[i], masks[i] = outcomes[i, method].image, outcomes[i, method].judge_mask
        found |= {f"{method}/images": images, f"{method}/masks": masks}
    return found


def vectors(
    cases: Sequence[Case], outcomes: Mapping[tuple[int, str], Outcome]
) -> dict[str, Tensor]:
    """Edits to add to other samples' ws: {`edit/row/method`: [num_ws, w_dim]}."""
    return {
        f"{cases[i].edit}/{cases[i].row}/{method}": torch.from_numpy(one.after - one.before)
        for (i, method), one in outcomes.items()
    }


def run_study(
    setup: Setup,
    edits: Sequence[Edit],
    source: Samples,
    count: int,  # samples of each edit
    success: Success,
    num_workers: int = 0,
) -> Study:
    """Choose the cases, edit each by every method, score, transfer."""
    cases, chosen = choose_cases(setup, edits, source, count)
    outcomes = edit_cases(setup, cases, num_workers)
    rows = score_study(setup, cases, outcomes, success, num_workers)
    classes = setup.segmenter(setup.teacher).classes
    attributes = {
        "classes": list(classes),
        "methods": list(setup.methods),
        "cases": [[case.edit, case.row, case.seed] for case in cases],
    }
    limits = {"iou": success.success_iou, "lab": success.success_lab}
    report = {"samples": chosen, "success": limits, "rule": asdict(setup.rule)}
    return Study(
        report | summarize(rows),
        mean_costs(outcomes),
        rows,
        arrays(cases, outcomes, setup.methods),
        attributes,
        vectors(cases, outcomes),
    )


def write_study(folder: Path, study: Study, generator: str | Path) -> None:
    """Write pictures.zarr.zip, vectors.safetensors (of this generator) and scores.csv."""
    write_group(folder / "pictures.zarr.zip", study.arrays, study.attributes)
    facts = {"generator": sha256(generator)[:16], "kind": "edit vectors, to add to ws"}
    write_safetensors(folder / "vectors.safetensors", study.vectors, facts)
    columns = list(dict.fromkeys(name for row in study.rows for name in row))
    with atomic(folder / "scores.csv") as partial, open(partial, "w", newline="") as file:
        table = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(study.rows)


def edit_one(
    setup: Setup, edit: Edit, z: Float32[np.ndarray, " z_dim"]
) -> tuple[Case, Outcome, dict[str, float]]:
    """One edit of one sample by the last method of the setup; Inapplicable if it means nothing."""
    unknown = np.full((len(setup.segmenter(setup.teacher).classes), 3), 128.0)
    case = make_case(setup, edit, z, unknown)
    (outcome,) = edit_together(setup, [case], setup.methods[-1])
    before = segment(setup, setup.judge or setup.teacher, case.image[None])[0]
    masks = before, outcome.judge_mask
    return case, outcome, score(case, outcome.image, outcome.teacher_mask, masks, Success())


def write_one(
    folder: Path, setup: Setup, case: Case, outcome: Outcome, scores: Mapping[str, float]
) -> None:
    """Write before.png, after.png, masks (as class ids), vector.safetensors and scores.json."""
    from PIL import Image

    pictures = {
        "before": case.image.transpose(1, 2, 0),
        "after": outcome.image.transpose(1, 2, 0),
    }
    for name, picture in pictures.items():
        with atomic(folder / f"{name}.png") as partial:
            Image.fromarray(np.ascontiguousarray(picture)).save(partial, "png")
    masks = {"before": case.own, "target": case.target.mask, "after": outcome.judge_mask}
    for name, mask in masks.items():
        write_mask(folder / f"mask_{name}.png", mask, setup.segmenter(setup.teacher).classes)
    method = setup.methods[-1]
    facts = {"generator": sha256(setup.checkpoint)[:16], "kind": "edit vectors, to add to ws"}
    vector = vectors([case], {(0, method): outcome})
    write_safetensors(folder / "vector.safetensors", vector, facts)
    write_json(folder / "scores.json", dict(scores) | {"edit": case.edit, "method": method})
