"""The study of Semantic-Conditional Sampling: many methods on the same targets and candidates.

A piece of work is a method on a few samples; its result is a file, so a killed run goes on where
it was. Fits, like pieces, are named by what they depend on.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from pipeline.analysis.fewshot import fits
from pipeline.analysis.fewshot.pool import annotate
from pipeline.data.arrays import Group
from pipeline.data.features import Source
from pipeline.data.inputs import Study
from pipeline.data.inputs import open_study as open_all_taps
from pipeline.editing.sampling import targets as targets_of
from pipeline.editing.sampling.method import Search
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
from pipeline.runtime.files import fingerprint, read_json, sha256

VERSION = 2  # raise it when the same parameters should give other values


@dataclass(frozen=True)
class FewShot:
    """Which few-shot extractors take part; they are fitted on the taps that the LSE reads."""

    shots: tuple[int, ...]
    refits: int  # how many of the repeats take part
    repeats: int  # disjoint draws from the pool
    seed: int
    rule: fits.Rule


def fit_methods(folder: Path, study: Study, few: FewShot) -> list[Method]:
    """Few-shot extractors on disjoint draws from the pool, fitted unless their files are there."""
    drawn = (
        [fits.annotated_task(study)]
        if study.annotations
        else fits.random_tasks(study.pool, few.shots, few.repeats, few.seed)
    )
    tasks = [task for task in drawn if task.repeat < few.refits]
    paths = {task: folder / f"fewshot_{len(task.rows)}_{task.repeat}.safetensors" for task in tasks}
    if missing := [task for task in tasks if not paths[task].exists()]:
        pool = annotate(study, fits.wanted(missing), few.rule.pixels_per_sample)
        for task in missing:
            extractor = fits.solve(study, pool, task, few.rule).extractor
            save_extractor(paths[task], extractor, {"name": "fewshot", "rows": task.rows})
    return [
        Method("fewshot", str(path), len(task.rows), task.repeat) for task, path in paths.items()
    ]


def open_folder(out: Path, facts: Mapping) -> Path:
    """The folder of a run's results so far; results of other settings are removed."""
    folder = out.with_name(f"{out.name}.{fingerprint(facts)}.partial")
    for other in out.parent.glob(f"{out.name}.*.partial"):
        if other != folder:
            shutil.rmtree(other)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True)
class Plan:
    """What to sample, by whom, and how."""

    samples: int  # a target
    teacher_samples: int  # of these, the first by the teacher in the loop, which costs the most
    search: Search
    few: FewShot
    rates: tuple[float, ...]  # learning rates whose course is shown
    rate_targets: int  # how many of the targets show it, a sample each

    def __post_init__(self):
        if self.teacher_samples < 1:
            raise InputError(
                f"teacher_samples {self.teacher_samples}",
                "at least 1: the teacher is what the others are compared with",
                "change teacher_samples",
            )

    def samples_of(self, method: Method) -> int:
        """Samples of a target by this method."""
        return min(self.teacher_samples, self.samples) if method.name == "teacher" else self.samples

    @property
    def looks(self) -> tuple[int, ...]:
        """Steps of the course that are shown."""
        steps = self.search.steps
        return tuple(sorted({0, steps // 5, steps // 2, steps}))


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
    count: int,
    seed: int,
    truncation_psi: float,
) -> UInt8[np.ndarray, "target size size"]:
    """The masks that samples shall show, at the study's label size."""
    size = Group(study.masks).read("test", "masks", slice(0, 1)).shape[-1]
    if folder is not None:
        return targets_of.folder_masks(folder, study.classes, size, count)
    source = study.source
    teacher = load_judge(judges.teacher, judges, source.device)
    return targets_of.teacher_masks(source.generator(), teacher, size, count, seed, truncation_psi)


def run_study(
    out: Path,
    study: Study,
    extractor: str,  # the fully fitted LSE
    judges: Judges,
    targets: UInt8[np.ndarray, "target size size"],
    plan: Plan,
    num_workers: int = 0,
) -> tuple[Found, Path]:
    """Sample with every method; results so far stay beside `out` until the caller removes them."""
    files = [study.source.checkpoint, extractor, judges.teacher, judges.judge]
    facts = {
        "version": VERSION,
        "data": [Group(study.source.latents).digest("ws"), Group(study.masks).digest("masks")],
        "files": [sha256(path) for path in files],
        "study": repr(study),
        "few": repr(plan.few),
        "targets": fingerprint(targets.tolist()),
        "labels": [judges.labels, judges.keep],
        "annotations": fingerprint({str(k): v.tolist() for k, v in study.annotations.items()}),
    }
    folder = open_folder(out, facts)
    methods = [Method("teacher", judges.teacher), Method("lse", extractor)]
    for method in methods:  # before any work
        segmenter((method,), judges, study.source.device)
    teams = teams_of([*methods, *fit_methods(folder, study, plan.few)])
    common = (study.source, judges)
    todo = [
        pieces(folder, team, *common, targets, plan.samples_of(team[0]), plan.search)
        for team in teams
    ]
    few = targets[: plan.rate_targets]
    courses = {
        rate: pieces(folder, (methods[1],), *common, few, 1, search, plan.looks)
        for rate, search in _searches(plan)
    }
    run_pieces([p for part in (*todo, *courses.values()) for p in part], num_workers)
    found = {m: x for part in todo for m, x in collect(part, len(targets)).items()}
    return Found(
        found,
        {rate: collect(part, len(few))[methods[1]] for rate, part in courses.items()},
    ), folder


def teams_of(methods: Sequence[Method]) -> list[tuple[Method, ...]]:
    """Methods that are searched with as one batch: the refits of a number of shots."""
    return [tuple(team) for _, team in groupby(methods, lambda m: (m.name, m.shots))]


def _searches(plan: Plan) -> Iterator[tuple[float, Search]]:
    for rate in plan.rates:
        yield rate, Search(**(vars(plan.search) | {"learning_rate": rate}))
