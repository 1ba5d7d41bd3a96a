"""Few-shot linear extractors: a handful of annotated samples of a pool (Xu & Zheng, section 4.1).

The pool is streamed once; every fit reads the hypercolumns of the pixels that its annotator drew.
"""

import csv
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline import selection, solvers
from pipeline.arrays import Group
from pipeline.devices import fast_bfloat16
from pipeline.errors import InputError, choose
from pipeline.extractors import LSE
from pipeline.features import Source, stream
from pipeline.files import atomic
from pipeline.metrics import dataset_scores, intersection_union, per_image_scores
from pipeline.pixels import UNLABELED, draw_pixels, hypercolumns
from pipeline.prediction import confusions
from pipeline.taps import Tap, select

SELECTIONS = ("random", "diverse", "uncertain")
ROUNDS = (1, 4, 8, 16, 32)  # shots after which `uncertain` looks again
UNANNOTATED = 128  # uniform pixels a sample, for the entropy of what is not annotated
IOU = "iou_per_image of "  # a class: a column of the table
DESCRIBED = 64  # channels of each tap whose means describe a sample to `diverse`


@dataclass(frozen=True)
class Rule:
    """How every few-shot problem is solved, whatever its shots: L-BFGS from zero, no whitening."""

    power: float  # channels are divided by their root mean square ** power
    l2: float
    iterations: int
    pixels_per_sample: int  # drawn from a full mask, weighted; strokes are used whole


@dataclass(frozen=True)
class Task:
    """One extractor to fit: which rows of the pool, and how each is annotated."""

    rows: tuple[int, ...]
    repeat: int
    selection: str = "random"
    candidates: str = "pool"  # or half: of the paired comparison of strategies
    strokes: int = 0  # labeled pixels a sample; 0: the full mask

    @property
    def facts(self) -> dict:
        """What a table says of it."""
        return {
            "shots": len(self.rows),
            "repeat": self.repeat,
            "selection": self.selection,
            "candidates": self.candidates,
            "annotation": "strokes" if self.strokes else "full",
        }


@dataclass(frozen=True)
class Part:
    """Hypercolumns of one annotation of one sample, with classes and weights (sum 1)."""

    x: Tensor  # [P, C]
    y: Tensor  # [P]
    weights: Tensor  # [P]


@dataclass
class Pool:
    """The annotated pool: {(row, strokes): Part}, and what is known of a row without a mask."""

    parts: dict[tuple[int, int], Part] = field(default_factory=dict)
    unlabeled: dict[int, Tensor] = field(default_factory=dict)  # [UNANNOTATED, C]
    descriptions: dict[int, np.ndarray] = field(default_factory=dict)  # [features]


@dataclass(frozen=True)
class Study:
    """The generator, its taps, and the masks that stand for the annotator."""

    source: Source
    masks: str  # zarr group of masks
    align_corners: bool = False
    max_tap_resolution: int | None = None  # px of the taps that are read; None: all
    # Rows of the pool that people annotated: masks with UNLABELED pixels, instead of `masks`.
    annotations: Mapping[int, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def taps(self) -> tuple[Tap, ...]:
        """Taps of the generator, up to max_tap_resolution."""
        return select(self.source.generator().taps, self.max_tap_resolution)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the masks' classes."""
        return tuple(Group(self.masks).attributes["classes"])

    @property
    def pool(self) -> int:
        """Samples in the pool; InputError if latents and masks do not belong together."""
        sizes = Group(self.source.latents).splits, Group(self.masks).splits
        if sizes[0] != sizes[1]:
            raise InputError(
                f"masks of {sizes[1]} samples and latents of {sizes[0]}",
                "one study's",
                "name the masks and the latents of one study",
            )
        return sizes[0].get("pool", 0)


def open_study(source: Source, masks: str, facts: Mapping) -> Study:
    """A study by the facts of its pixel store; InputError if that is another study's."""
    taps = [vars(tap) for tap in source.generator().taps]
    digest = Group(masks).digest("masks")
    if facts["taps"] != taps or facts["masks"] != digest:
        raise InputError(
            f"a pixel store of {len(facts['taps'])} taps and of masks {facts['masks']}",
            f"{len(taps)} taps and masks {digest}",
            "name the pixel store, the masks and the generator of one study",
        )
    return Study(source, masks, facts["align_corners"])


def annotate(
    study: Study,
    wanted: Mapping[int, Sequence[int]],  # row of the pool: its annotations, in strokes (0: full)
    pixels_per_sample: int,
    unlabeled: bool = False,  # also describe the rows without their masks
) -> Pool:
    """Synthesize the rows of the pool once and look up the hypercolumns of their annotations."""
    masks, seeds = (
        Group(path).read("pool", name)
        for path, name in ((study.masks, "masks"), (study.source.latents, "seeds"))
    )
    taps, pool, size = study.taps, Pool(), masks.shape[-1]
    dtype = torch.bfloat16 if fast_bfloat16(study.source.device) else torch.float32
    for row in sorted(wanted):
        seed = int(seeds[row])
        features, _ = next(stream(study.source, "pool", row, row + 1, taps))
        sample = [features[tap.name][0] for tap in taps]
        drawn = {
            strokes: _drawn(
                study.annotations.get(row, masks[row]),
                *(strokes, pixels_per_sample, seed, len(study.classes)),
            )
            for strokes in wanted[row]
        }
        places = [places for places, _ in drawn.values()]
        if unlabeled:
            places.append(np.random.default_rng(seed).integers(0, size * size, UNANNOTATED))
            pool.descriptions[row] = describe(sample)
        columns = hypercolumns(sample, np.concatenate(places), size, study.align_corners)
        split = columns.to(dtype).split([len(p) for p in places])
        for x, (strokes, (where, weights)) in zip(split, drawn.items(), strict=False):
            mask = study.annotations.get(row, masks[row])
            y = torch.from_numpy(mask.ravel()[where]).long().to(x.device)
            weights = torch.from_numpy(weights / weights.sum()).float().to(x.device)
            pool.parts[row, strokes] = Part(x, y, weights)
        if unlabeled:
            pool.unlabeled[row] = split[-1]
    return pool


def _drawn(
    mask: np.ndarray, strokes: int, count: int, seed: int, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Places and weights of one annotation of a mask.

    A full mask gives importance-weighted draws; a stroke's pixels count the same, since whoever
    drew strokes does not know the areas.
    """
    if strokes:
        places = selection.strokes(mask, strokes, seed)
        return places, np.ones(len(places), np.float32)
    pixels = draw_pixels(mask, count, seed, num_classes)
    return pixels.places, pixels.weights


def describe(sample: Sequence[Tensor]) -> np.ndarray:
    """A sample [features] by the mean over pixels of its taps, a few channels of each."""
    return np.concatenate([x.float().mean((1, 2))[:DESCRIBED].cpu().numpy() for x in sample])


def fit(pool: Pool, task: Task, rule: Rule, num_classes: int) -> Float[Tensor, "channel class"]:
    """Solve one task; every sample counts the same."""
    parts = [pool.parts[row, task.strokes] for row in task.rows]
    data = solvers.problem(
        torch.cat([part.x for part in parts]),
        torch.cat([part.y for part in parts]),
        torch.cat([part.weights for part in parts]),
        num_classes,
        bias=False,
        power=rule.power,
    )
    found = solvers.lbfgs(data, [rule.l2], rule.iterations, precondition=False)
    return found.matrix[0].cpu()


@dataclass(frozen=True)
class Fitted:
    """A solved task: its extractor, and what it cost."""

    task: Task
    extractor: LSE
    labeled_pixels: int
    cpu_seconds: float


def solve(study: Study, pool: Pool, task: Task, rule: Rule) -> Fitted:
    """Fit a task and time it."""
    cpu = time.process_time()
    matrix = fit(pool, task, rule, len(study.classes))
    seconds = time.process_time() - cpu
    extractor = LSE(study.classes, study.taps, align_corners=study.align_corners)
    extractor.set_matrix(matrix)
    size = Group(study.masks).read("pool", "masks", slice(0, 1)).shape[-1]
    labeled = sum(
        int((study.annotations[row] != UNLABELED).sum())
        if row in study.annotations
        else task.strokes or size * size
        for row in task.rows
    )
    return Fitted(task, extractor.requires_grad_(False), labeled, seconds)


def random_tasks(pool: int, shots: Sequence[int], repeats: int, seed: int) -> list[Task]:
    """Full masks of disjoint draws, for every number of shots."""
    return [
        Task(tuple(rows.tolist()), repeat)
        for num in shots
        for repeat, rows in enumerate(selection.disjoint_draws(pool, num, repeats, seed))
    ]


def annotated_task(study: Study) -> Task:
    """The one task of a study with annotations: all of them."""
    return Task(tuple(sorted(study.annotations)), 0, "annotated")


def stroke_tasks(
    pool: int,
    budgets: Sequence[int],  # labeled pixels in all
    images: Sequence[int],  # over how many samples they are spread, evenly
    repeats: int,
    seed: int,
) -> list[Task]:
    """Strokes on the same samples that the full masks of as many shots have."""
    for budget in budgets:
        if budget < max(images, default=0):
            raise InputError(
                f"a stroke budget of {budget} pixels over {max(images)} images",
                "at least one pixel an image",
                "raise stroke_budgets",
            )
    return [
        Task(task.rows, task.repeat, strokes=budget // len(task.rows))
        for budget in budgets
        for task in random_tasks(pool, images, repeats, seed)
    ]


def select_and_solve(
    study: Study,
    pool: Pool,
    strategies: Sequence[str],
    shots: Sequence[int],  # ascending: uncertain samples are added in these rounds
    repeats: int,
    seed: int,
    rule: Rule,
) -> list[Fitted]:
    """Every strategy on the same random half of the pool a repeat; masks only of what it picked."""
    total, found = study.pool, []
    for strategy in strategies:
        choose("selection", strategy, SELECTIONS)
    for repeat, half in enumerate(selection.candidates(total, repeats, seed)):
        for strategy in strategies:
            last: Fitted | None = None
            for num in sorted(shots):
                rows = _pick(pool, strategy, half, num, last)
                last = solve(study, pool, Task(rows, repeat, strategy, "half"), rule)
                found.append(last)
    return found


def _pick(
    pool: Pool, strategy: str, half: np.ndarray, num: int, last: Fitted | None
) -> tuple[int, ...]:
    if num > len(half):
        raise InputError(
            f"{num} shots from a random half of the pool, {len(half)} samples",
            f"at most {len(half)}",
            "lower shots, raise the study's sample.pool, or drop selections",
        )
    if strategy == "diverse":
        described = np.stack([pool.descriptions[int(row)] for row in half])
        scaled = described / np.sqrt((described**2).mean(0)).clip(1e-12)
        return tuple(half[selection.k_center(scaled, num)].tolist())
    if strategy == "random" or last is None:
        return tuple(half[:num].tolist())
    taken = last.task.rows
    scores = np.array([entropy(last.extractor, pool.unlabeled[int(row)]) for row in half])
    known = np.flatnonzero(np.isin(half, taken))
    added = selection.most_uncertain(scores, known, num - len(taken))
    return (*taken, *half[added].tolist())


def entropy(extractor: LSE, columns: Float[Tensor, "pixel channel"]) -> float:
    """Mean entropy in nats of the extractor's softmax over classes at some pixels."""
    matrix = torch.cat([weight.T for weight in extractor.weights]).to(columns.device)
    log_p = solvers.times(columns, matrix).log_softmax(1)
    return float(-(log_p.exp() * log_p).sum(1).mean())


def score(study: Study, fitted: Sequence[Fitted], workers: int) -> list[dict]:
    """A table row each, scored on the test split, which is synthesized once for all of them."""
    extractors = [one.extractor for one in fitted]
    counted = confusions(extractors, study.source, study.masks, "test", workers)
    rows = []
    for one, confusion in zip(fitted, counted, strict=True):
        pair = intersection_union(confusion)
        per_image = per_image_scores(*pair)
        iou = zip(one.extractor.classes[1:], per_image.per_class[1:], strict=True)
        rows.append(
            one.task.facts
            | {
                "labeled_pixels": one.labeled_pixels,
                "miou_per_image": round(100 * per_image.mean, 3),
                "miou_dataset": round(100 * dataset_scores(*pair).mean, 3),
                "cpu_seconds": round(one.cpu_seconds, 2),
            }
            | {IOU + name: round(100 * float(value), 3) for name, value in iou}
        )
    return rows


def wanted(tasks: Sequence[Task]) -> dict[int, list[int]]:
    """The annotations of each row of the pool that the tasks need, each once."""
    found: dict[int, dict[int, None]] = {}
    for task in tasks:
        for row in task.rows:
            found.setdefault(row, {})[task.strokes] = None
    return {row: list(kinds) for row, kinds in found.items()}


def statistics(values: Sequence[float]) -> dict:
    """Mean, sample standard deviation and the largest deviation from the mean (the paper's +-)."""
    found = np.asarray(values, float)
    spread = found.std(ddof=1) if len(found) > 1 else 0.0
    return {
        "mean": round(float(found.mean()), 3),
        "standard_deviation": round(float(spread), 3),
        "maximum_deviation": round(float(np.abs(found - found.mean()).max()), 3),
    }


def summary(rows: Sequence[dict], full: Mapping) -> dict:
    """Both protocols over repeats, with the ratio to the fully fitted LSE's score in percent.

    `full` is that LSE's scores against the teacher, as evaluate_extractor writes them.
    """
    found: dict = {"repeats": len(rows), "labeled_pixels": rows[0]["labeled_pixels"]}
    for name in ("miou_per_image", "miou_dataset"):
        values = statistics([row[name] for row in rows])
        best = full["against_teacher"][name]["mean"]
        found[name] = values | {"of_full_lse": round(100 * values["mean"] / best, 2)}
    found["iou_per_image"] = {
        key.removeprefix(IOU): round(float(np.mean([row[key] for row in rows])), 3)
        for key in rows[0]
        if key.startswith(IOU) and not np.isnan(rows[0][key])  # NaN: in no test image
    }
    found["fit_cpu_seconds"] = round(sum(row["cpu_seconds"] for row in rows), 2)
    return found


def fit_fewshot(
    study: Study,
    shots: int,
    repeats: int,
    seed: int,
    rule: Rule,
    workers: int,
    strategy: str = "random",  # which samples to annotate: of SELECTIONS
) -> tuple[list[Fitted], list[dict]]:
    """Fit `repeats` extractors on `shots` samples each; return them and their rows.

    A study with annotations gives one extractor, of all that people annotated.

    Random draws are disjoint. The other strategies choose from a random half of the pool a repeat,
    as in the sweep; uncertain samples are added in rounds.
    """
    choose("selection", strategy, SELECTIONS)
    if study.annotations or strategy == "random":
        tasks = (
            [annotated_task(study)]
            if study.annotations
            else random_tasks(study.pool, [shots], repeats, seed)
        )
        pool = annotate(study, wanted(tasks), rule.pixels_per_sample)
        fitted = [solve(study, pool, task, rule) for task in tasks]
    else:
        everything = {row: [0] for row in range(study.pool)}
        pool = annotate(study, everything, rule.pixels_per_sample, unlabeled=True)
        rounds = [num for num in ROUNDS if num < shots and strategy == "uncertain"]
        found = select_and_solve(study, pool, [strategy], [*rounds, shots], repeats, seed, rule)
        fitted = [one for one in found if len(one.task.rows) == shots]
    return fitted, score(study, fitted, workers)


@dataclass(frozen=True)
class Sweep:
    """What to compare: shots, ways to select samples, and strokes."""

    shots: Sequence[int]
    repeats: int
    selections: Sequence[str]  # each on the same random halves of the pool
    stroke_budgets: Sequence[int]  # labeled pixels in all
    stroke_images: Sequence[int]  # samples that a budget is spread over
    seed: int


def sweep_fewshot(study: Study, sweep: Sweep, rule: Rule, workers: int) -> list[dict]:
    """Fit everything that the sweep names; one table row an extractor."""
    for name in sweep.selections:
        choose("selection", name, SELECTIONS)
    total = study.pool
    tasks = random_tasks(total, sweep.shots, sweep.repeats, sweep.seed)
    tasks += stroke_tasks(
        total, sweep.stroke_budgets, sweep.stroke_images, sweep.repeats, sweep.seed
    )
    needed = wanted(tasks)
    if sweep.selections:  # any sample may be picked
        needed = {row: sorted({0, *needed.get(row, [])}) for row in range(total)}
    pool = annotate(study, needed, rule.pixels_per_sample, unlabeled=bool(sweep.selections))
    fitted = [solve(study, pool, task, rule) for task in tasks]
    fitted += select_and_solve(
        study, pool, sweep.selections, sweep.shots, sweep.repeats, sweep.seed, rule
    )
    return score(study, fitted, workers)


def report(rows: Sequence[dict], full: Mapping) -> dict:
    """Scores over repeats: full masks by shots, strokes by samples and budget, selections.

    A selection's `gain` is its paired difference to random, on the same halves of the pool.
    """
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        if row["candidates"] == "half":
            key = "selection", row["selection"], row["shots"]
        elif row["annotation"] == "strokes":
            key = "strokes", f"{row['shots']} samples", row["labeled_pixels"]
        else:
            key = "full", row["shots"]
        groups.setdefault(key, []).append(row)
    found: dict = {}
    for (*path, last), group in groups.items():
        node = found
        for name in path:
            node = node.setdefault(name, {})
        node[str(last)] = summary(group, full)
        random = groups.get(("selection", "random", last))
        if path[0] == "selection" and path[1] != "random" and random:
            node[str(last)]["gain"] = {
                name: _gain([r[name] for r in group], [r[name] for r in random])
                for name in ("miou_per_image", "miou_dataset")
            }
    return found


def _gain(ours: Sequence[float], random: Sequence[float]) -> dict:
    """Mean of paired differences over repeats, and the reach of its 95 % t interval."""
    from scipy.stats import t

    differences, num = np.subtract(ours, random), len(ours)
    if num < 2:
        return {"mean": round(float(differences.mean()), 3), "plus_minus": None}
    reach = t.ppf(0.975, num - 1) * differences.std(ddof=1) / num**0.5
    return {"mean": round(float(differences.mean()), 3), "plus_minus": round(float(reach), 3)}


def write_table(path: str | Path, rows: Sequence[dict]) -> None:
    """Write the rows as CSV, atomically."""
    with atomic(path) as partial, open(partial, "w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


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
