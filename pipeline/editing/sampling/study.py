"""The study of Semantic-Conditional Sampling: many methods on the same targets and candidates.

Few-shot fits and a method's samples are pieces in the store: a killed run goes on where it was, and
another experiment makes only what it changes.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from pipeline.analysis.fewshot import fits
from pipeline.data.arrays import Group
from pipeline.data.features import Source
from pipeline.data.inputs import Study
from pipeline.data.inputs import open_study as open_all_taps
from pipeline.editing.sampling import targets as targets_of
from pipeline.editing.sampling.options import FewShot, Plan, Search
from pipeline.editing.sampling.pieces import (
    Judges,
    Method,
    collect,
    load_judge,
    pieces,
    run_pieces,
    segmenter,
)
from pipeline.extractors.networks import load_extractor, save_extractor
from pipeline.extractors.prediction import check_extractor
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json, sha256


def fit_methods(folder: Path, study: Study, few: FewShot) -> list[Method]:
    """Few-shot extractors on disjoint draws from the pool, as files in `folder`."""
    drawn = (
        [fits.annotated_task(study)]
        if study.annotations
        else fits.random_tasks(study.pool, few.all_shots, few.repeats, few.fewshot_seed)
    )
    tasks, methods = [task for task in drawn if task.repeat < few.refits], []
    for fitted in fits.solve_all(study, tasks, few.rule):
        task = fitted.task
        path = folder / f"fewshot_{len(task.rows)}_{task.repeat}.safetensors"
        save_extractor(path, fitted.extractor, {"name": "fewshot", "rows": task.rows})
        methods.append(Method("fewshot", str(path), len(task.rows), task.repeat))
    return methods


@dataclass(frozen=True)
class Found:
    """Every method's arrays [target, sample, ...], and the full LSE's at every learning rate."""

    methods: dict[Method, dict[str, np.ndarray]]
    rates: dict[float, dict[str, np.ndarray]]


def open_study(source: Source, masks: Path, pixels: Path, extractor: Path) -> Study:
    """A study of the taps that `extractor` reads; InputError if the files are not of one study."""
    own = sha256(source.checkpoint)[:16]
    known = Group(source.latents).attributes.get("generator", own)
    if known != own:
        raise InputError(
            f"{source.latents} of generator {known}",
            f"latents of {source.checkpoint}, {own}",
            "name the latents and the generator of one study",
        )
    check_extractor(str(extractor), source, None)
    finest = max(tap.resolution for tap in load_extractor(extractor).taps)
    study = open_all_taps(source, str(masks), read_json(pixels)["facts"])
    return replace(study, max_tap_resolution=finest)


def draw_targets(
    study: Study,
    judges: Judges,
    folder: Path | None,  # of *.png; None: the teacher's masks of samples of their own seeds
    plan: Plan,
) -> UInt8[np.ndarray, "target size size"]:
    """The masks that samples shall show, at the study's label size."""
    size = Group(study.masks).label_size
    if folder is not None:
        return targets_of.folder_masks(folder, study.classes, size, plan.targets)
    source = study.source
    teacher = load_judge(judges.teacher, judges, source.device)
    return targets_of.teacher_masks(
        source.generator(), teacher, size, plan.targets, plan.search.seed, plan.target_psi
    )


def run_study(
    study: Study,
    extractor: str,  # the fully fitted LSE
    judges: Judges,
    targets: UInt8[np.ndarray, "target size size"],
    plan: Plan,
    num_workers: int = 0,
) -> Found:
    """Sample with every method; what an earlier run or another experiment has made is read."""
    methods = [Method("teacher", judges.teacher), Method("lse", extractor)]
    for method in methods:  # before any work
        segmenter((method,), judges, study.source.device)
    with tempfile.TemporaryDirectory() as folder:
        teams = teams_of([*methods, *fit_methods(Path(folder), study, plan.few)])
        common = (study.source, judges)
        todo = [
            pieces(team, *common, targets, samples_of(team[0], plan), plan.search) for team in teams
        ]
        few = targets[: plan.rate_targets]
        courses = {
            rate: pieces((methods[1],), *common, few, 1, search, plan.looks)
            for rate, search in _searches(plan)
        }
        every = [piece for part in (*todo, *courses.values()) for piece in part]
        results = run_pieces(every, num_workers)
    found = {m: x for part in todo for m, x in collect(part, results, len(targets)).items()}
    rates = {rate: collect(p, results, len(few))[methods[1]] for rate, p in courses.items()}
    return Found(found, rates)


def samples_of(method: Method, plan: Plan) -> int:
    """Samples of each target by this method."""
    if method.name == "teacher":
        return min(plan.teacher_samples, plan.samples)
    return plan.samples


def teams_of(methods: Sequence[Method]) -> list[tuple[Method, ...]]:
    """Methods that are searched with as one batch: the refits of a number of shots."""
    return [tuple(team) for _, team in groupby(methods, lambda m: (m.name, m.shots))]


def _searches(plan: Plan) -> Iterator[tuple[float, Search]]:
    for rate in plan.rates:
        yield rate, replace(plan.search, learning_rate=rate)
