"""The study of Semantic-Conditional Sampling: many methods on the same targets and candidates.

A piece of work is a method on a few samples; its result is a file, so a killed run goes on where
it was. Fits, like pieces, are named by what they depend on.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from pipeline import fewshot, workers
from pipeline.arrays import Group
from pipeline.editing import targets as targets_of
from pipeline.editing.conditional import Search, sample_conditionally
from pipeline.editing.optimize import ByExtractor, ByTeacher, Forward, Segmenter
from pipeline.errors import InputError
from pipeline.extractors import load_extractor, save_extractor
from pipeline.features import Source
from pipeline.files import atomic, fingerprint, read_json, sha256
from pipeline.images import to_float, to_uint8
from pipeline.prediction import check_extractor
from pipeline.teachers import Teacher, load_teacher

VERSION = 1  # raise it when the same parameters should give other values
ON_CPU = 4  # samples a piece: more are little faster, and more is lost by a kill
MOMENTS = ("before", "last", "best")  # of a search: its start, its last z, its lowest loss


@dataclass(frozen=True)
class Method:
    """Who segments while SCS searches."""

    name: str  # lse, teacher or fewshot
    weights: str  # an extractor's or a teacher's file
    shots: int = 0  # annotated samples of a few-shot LSE; 0: all there are
    refit: int = 0  # which draw of these samples

    @property
    def key(self) -> str:
        """A name that no other method has."""
        return f"{self.name}_{self.shots}_{self.refit}" if self.shots else self.name


@dataclass(frozen=True)
class Judges:
    """The two networks that label what was sampled, in the label space of the targets."""

    teacher: str
    judge: str
    labels: str
    keep: tuple[str, ...] | None = None

    @property
    def files(self) -> dict[str, str]:
        """Weights by who labels."""
        return {"teacher": self.teacher, "judge": self.judge}


@dataclass(frozen=True)
class Piece:
    """A method on some (target, sample) pairs, and the file that its result goes to."""

    path: str
    method: Method
    source: Source
    judges: Judges
    targets: np.ndarray  # [N, size, size], one a pair
    keys: tuple[tuple[int, int], ...]
    search: Search
    keep: tuple[int, ...] = ()  # also look after so many steps


@lru_cache(maxsize=3)
def _teacher(path: str, judges: Judges, device: str) -> Teacher:
    return load_teacher(path, judges.labels, device, judges.keep)


@lru_cache(maxsize=1)
def segmenter(method: Method, judges: Judges, device: str) -> Segmenter:
    """The method's segmenter; InputError if it does not know the targets' classes."""
    if method.name == "teacher":
        return ByTeacher(_teacher(method.weights, judges, device))
    found, wanted = load_extractor(method.weights, device), _teacher(judges.judge, judges, device)
    if found.classes != wanted.classes:
        raise InputError(
            f"{method.weights} with classes {', '.join(found.classes)}",
            f"those of the targets: {', '.join(wanted.classes)}",
            "fit the extractor on masks of this label space",
        )
    return ByExtractor(found)


def work(piece: Piece) -> str:
    """Search, look at the images found with every judge, and write all of it to the piece's file.

    Arrays are {z,images,own,teacher,judge}_<moment>, N rows each, and the losses.
    """
    device, size = piece.source.device, piece.targets.shape[-1]
    generator, own = piece.source.generator(), segmenter(piece.method, piece.judges, device)
    z_0, found = sample_conditionally(
        generator, own, piece.targets, piece.keys, piece.search, piece.keep
    )
    moments = {"before": z_0, "last": found.last, "best": found.best}
    if piece.keep:
        moments = {f"step{k}": z for k, z in found.kept.items()}
    psi, arrays = piece.search.truncation_psi, {"losses": found.losses.cpu().numpy()}
    forward = Forward(generator, "z", tuple(own.taps), True, psi)
    for moment, z in moments.items():
        with torch.no_grad():
            rendered = forward(z)
            logits = own.logits(rendered, size)
            images = to_uint8(rendered.images, size)
        arrays[f"z_{moment}"], arrays[f"images_{moment}"] = z.cpu().numpy(), images
        arrays[f"own_{moment}"] = logits.argmax(1).to(torch.uint8).cpu().numpy()
        for who, weights in piece.judges.files.items():
            seen = _teacher(weights, piece.judges, device).label(to_float(images), size)
            arrays[f"{who}_{moment}"] = seen
    with atomic(piece.path) as partial, open(partial, "wb") as file:
        np.savez(file, **arrays)
    return piece.path


def pieces(
    folder: Path,
    method: Method,
    source: Source,
    judges: Judges,
    targets: UInt8[np.ndarray, "target size size"],
    samples: int,
    search: Search,
    keep: Sequence[int] = (),
) -> list[Piece]:
    """Every sample of every target for one method, a few at a time."""
    keys = [(t, s) for t in range(len(targets)) for s in range(samples)]
    step = min(ON_CPU, source.batch_size) if source.device == "cpu" else source.batch_size
    found = []
    asked = fingerprint([vars(search), list(keep), samples])[:8]
    for start in range(0, len(keys), step):
        some = tuple(keys[start : start + step])
        path = str(folder / f"{method.key}_{asked}_{start}.npz")
        masks = targets[[target for target, _ in some]]
        found.append(Piece(path, method, source, judges, masks, some, search, tuple(keep)))
    return found


def collect(found: Sequence[Piece], num_targets: int) -> dict[str, np.ndarray]:
    """The arrays of one method's pieces, [target, sample, ...]."""
    parts = []
    for piece in found:
        with np.load(piece.path) as file:
            arrays = dict(file)
        arrays["losses"] = arrays["losses"].T  # samples first, as everything else
        parts.append(arrays)
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {name: x.reshape(num_targets, -1, *x.shape[1:]) for name, x in whole.items()}


def run_pieces(todo: Sequence[Piece], num_workers: int) -> None:
    """Work on what has no result yet, the slowest method first."""
    missing = [piece for piece in todo if not Path(piece.path).exists()]
    missing.sort(key=lambda piece: piece.method.name != "teacher")
    if not missing:
        return
    processes = workers.count(num_workers, missing[0].source.device, len(missing))
    for _ in workers.run(work, missing, "sampling conditionally", processes):
        pass


@dataclass(frozen=True)
class FewShot:
    """Which few-shot extractors take part; they are fitted on the taps that the LSE reads."""

    shots: tuple[int, ...]
    refits: int  # how many of the repeats take part
    repeats: int  # disjoint draws from the pool
    seed: int
    rule: fewshot.Rule


def fit_methods(folder: Path, study: fewshot.Study, few: FewShot) -> list[Method]:
    """Few-shot extractors on disjoint draws from the pool, fitted unless their files are there."""
    drawn = (
        [fewshot.annotated_task(study)]
        if study.annotations
        else fewshot.random_tasks(study.pool, few.shots, few.repeats, few.seed)
    )
    tasks = [task for task in drawn if task.repeat < few.refits]
    paths = {task: folder / f"fewshot_{len(task.rows)}_{task.repeat}.safetensors" for task in tasks}
    if missing := [task for task in tasks if not paths[task].exists()]:
        pool = fewshot.annotate(study, fewshot.wanted(missing), few.rule.pixels_per_sample)
        for task in missing:
            extractor = fewshot.solve(study, pool, task, few.rule).extractor
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
    search: Search
    few: FewShot
    rates: tuple[float, ...]  # learning rates whose course is shown
    rate_targets: int  # how many of the targets show it, a sample each

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


def open_study(source: Source, masks: Path, pixels: Path, extractor: Path) -> fewshot.Study:
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
    study = fewshot.open_study(source, str(masks), read_json(pixels)["facts"])
    return replace(study, max_tap_resolution=finest)


def draw_targets(
    study: fewshot.Study,
    judges: Judges,
    folder: Path | None,  # of *.png; None: the teacher's masks of samples of their own seeds
    count: int,
    seed: int,
    truncation_psi: float,
) -> UInt8[np.ndarray, "target size size"]:
    """The masks that samples shall show, at the study's label size."""
    size = Group(study.masks).read("test", "masks", slice(0, 1)).shape[-1]
    if folder is not None:
        return targets_of.folder_masks(folder, len(study.classes), size, count)
    source = study.source
    teacher = _teacher(judges.teacher, judges, source.device)
    return targets_of.teacher_masks(source.generator(), teacher, size, count, seed, truncation_psi)


def run_study(
    out: Path,
    study: fewshot.Study,
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
        segmenter(method, judges, study.source.device)
    methods += fit_methods(folder, study, plan.few)
    common = (study.source, judges)
    todo = {m: pieces(folder, m, *common, targets, plan.samples, plan.search) for m in methods}
    few = targets[: plan.rate_targets]
    courses = {
        rate: pieces(folder, methods[1], *common, few, 1, search, plan.looks)
        for rate, search in _searches(plan)
    }
    run_pieces([p for part in (*todo.values(), *courses.values()) for p in part], num_workers)
    return Found(
        {method: collect(part, len(targets)) for method, part in todo.items()},
        {rate: collect(part, len(few)) for rate, part in courses.items()},
    ), folder


def _searches(plan: Plan) -> Iterator[tuple[float, Search]]:
    for rate in plan.rates:
        yield rate, Search(**(vars(plan.search) | {"learning_rate": rate}))
