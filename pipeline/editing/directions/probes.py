"""Samples moved along directions, and what of them changes: masks by an LSE, colors by the image.

The pass ends at the LSE's last tap, but for the few samples whose colors are looked at.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.data.arrays import Group
from pipeline.data.features import Source
from pipeline.data.images import to_uint8
from pipeline.editing.directions.mask_changes import Seen, areas, poses, structure_change
from pipeline.editing.directions.method import Vector, Vectors, move
from pipeline.editing.semantic.method import within
from pipeline.extractors.networks import LSE, load_extractor
from pipeline.generators.latents import sample_z
from pipeline.generators.taps import record
from pipeline.metrics.color import lab
from pipeline.runtime import workers
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import atomic, fingerprint, sha256

VERSION = 1  # raise it when the same parameters should give other numbers
DIRECTIONS_A_TASK = 8
SAMPLES_A_TASK = 64


@dataclass(frozen=True)
class Setup:
    """What it takes to look at moved samples, in this or another process."""

    source: Source
    extractor: str  # fitted LSE, which reads the masks
    finest: int | None  # its taps up to so many px take part; None: all
    size: int  # of masks and images, px
    samples: int  # of the test split, from its first
    color_samples: int  # of these, the first ones' images are synthesized

    @property
    def classes(self) -> tuple[str, ...]:
        return self.reader().classes

    def reader(self) -> LSE:
        """The part of the LSE that takes part, loaded once a process."""
        return _reader(self.extractor, self.finest, self.source.device)

    def facts(self) -> dict:
        """What every number depends on besides directions and steps."""
        return {
            "version": VERSION,
            "files": [_hash(self.source.checkpoint), _hash(self.extractor)],
            "ws": _digest(self.source.latents),
            "compute": self.source.compute,
            "finest": self.finest,
            "size": self.size,
            "samples": [self.samples, self.color_samples],
        }


@lru_cache(maxsize=2)
def _reader(path: str, finest: int | None, device: str) -> LSE:
    extractor = load_extractor(path, device)
    if not isinstance(extractor, LSE):
        raise InputError(f"{path}, an extractor of another kind", "an LSE", "name a fitted LSE")
    return within(extractor, finest)


@lru_cache(maxsize=16)
def _hash(path: str) -> str:
    return sha256(path)[:16]


@lru_cache(maxsize=4)
def _digest(latents: str) -> str:
    return Group(latents).digest("ws")


@torch.inference_mode()
def render(
    setup: Setup, ws: Float[Tensor, "sample num_ws w_dim"], images: bool
) -> tuple[UInt8[np.ndarray, "sample size size"], UInt8[np.ndarray, "sample 3 size size"] | None]:
    """Masks, and images where asked for, else None; batch by batch."""
    generator, reader = setup.source.generator(), setup.reader()
    masks, pictures = [], []
    for part in ws.to(setup.source.device).split(setup.source.batch_size):
        with record(generator, reader.taps) as features:
            drawn = generator.synthesis(part, stop_at=None if images else reader.taps[-1])
        masks.append(reader.predict(features, setup.size))
        if drawn is not None:
            pictures.append(to_uint8(drawn, setup.size))
    return np.concatenate(masks), np.concatenate(pictures) if images else None


def look(setup: Setup, ws: Float[Tensor, "sample num_ws w_dim"]) -> Seen:
    """Masks of all samples, and colors of the first ones."""
    few = setup.color_samples
    masks, images = render(setup, ws[:few], images=True)
    if few < len(ws):
        masks = np.concatenate([masks, render(setup, ws[few:], images=False)[0]])
    return Seen(masks, lab(images))


@lru_cache(maxsize=2)
def unedited(setup: Setup) -> tuple[Tensor, Seen]:
    """The ws of the samples, and what they show as they are."""
    ws = setup.source.ws("test", 0, setup.samples)
    return ws, look(setup, ws)


def measure(
    setup: Setup,
    vector: Vector,
    rows: Sequence[int],  # of ws
    step: float,  # in units of w
) -> dict[str, np.ndarray]:
    """What a step changes: statistics [sample, statistic], masks [sample], images [image].

    Every other sample steps back, and its change counts negatively: what a sample does either way,
    such as to fall apart, does not count as an effect of the direction.
    """
    ws, before = unedited(setup)
    signs = np.where(np.arange(len(ws)) % 2, -1.0, 1.0)
    after = look(setup, move(ws, vector, rows, signs * step))
    change = after.statistics(setup.classes) - before.statistics(setup.classes)
    return {
        "effects": signs[:, None] * change,
        "mask_change": structure_change(after.masks, before.masks, len(setup.classes)),
        "image_change": np.linalg.norm(after.lab - before.lab, axis=1).mean((1, 2)),
    }


@dataclass(frozen=True)
class Probes:
    """Some directions, and the file that keeps what they change."""

    setup: Setup
    vectors: Vectors
    rows: tuple[int, ...]
    step: float
    path: Path


def _probe(task: Probes) -> Path:
    if not task.path.exists():
        found = [measure(task.setup, v, task.rows, task.step) for v in task.vectors]
        _save(task.path, {name: np.stack([one[name] for one in found]) for name in found[0]})
    return task.path


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with atomic(path) as partial, open(partial, "wb") as file:
        np.savez(file, **arrays)


@dataclass(frozen=True)
class Prober:
    """Measures directions; what was measured is kept in a folder, so a killed study goes on."""

    setup: Setup
    folder: Path
    num_workers: int = 0

    def changes(
        self, vectors: Vectors, rows: Sequence[int], step: float, what: str
    ) -> dict[str, np.ndarray]:
        """`measure` of every direction: arrays [direction, ...]."""
        starts = range(0, len(vectors), DIRECTIONS_A_TASK)
        tasks = [
            self._probes(vectors[i : i + DIRECTIONS_A_TASK], tuple(rows), step) for i in starts
        ]
        return self._run(_probe, tasks, what)

    def _probes(self, vectors: Vectors, rows: tuple[int, ...], step: float) -> Probes:
        facts = [self.setup.facts(), vectors.round(9).tolist(), rows, round(step, 9)]
        path = self.folder / f"{fingerprint(facts)}.npz"
        return Probes(self.setup, vectors, rows, step, path)

    def population(
        self, count: int, truncation_psi: float, first_seed: int
    ) -> dict[str, np.ndarray]:
        """w [sample, w_dim] of new samples, and the areas and poses of their masks."""
        tasks = []
        for start in range(first_seed, first_seed + count, SAMPLES_A_TASK):
            stop = min(start + SAMPLES_A_TASK, first_seed + count)
            facts = [self.setup.facts(), start, stop, truncation_psi]
            path = self.folder / f"{fingerprint(facts)}.npz"
            tasks.append(Population(self.setup, start, stop, truncation_psi, path))
        return self._run(_populate, tasks, "segmenting samples for boundaries")

    def _run(self, function: Callable, tasks: Sequence, what: str) -> dict[str, np.ndarray]:
        waiting = [task for task in tasks if not task.path.exists()]
        processes = workers.count(self.num_workers, self.setup.source.device, len(waiting) or 1)
        for _ in workers.run(function, waiting, what, processes):
            pass
        parts = [dict(np.load(task.path)) for task in tasks]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True)
class Population:
    """Samples of some seeds, and the file that keeps what their masks show."""

    setup: Setup
    first_seed: int
    stop_seed: int
    truncation_psi: float
    path: Path


def _populate(task: Population) -> Path:
    setup, generator = task.setup, task.setup.source.generator()
    z = torch.from_numpy(sample_z(range(task.first_seed, task.stop_seed), generator.z_dim))
    with torch.inference_mode():
        ws = generator.mapping(z.to(generator.device), task.truncation_psi)
    masks, _ = render(setup, ws, images=False)
    _save(task.path, {"w": ws[:, 0].cpu().numpy(), "statistics": traits(masks, setup.classes)})
    return task.path


def traits(
    masks: UInt8[np.ndarray, "sample size size"], classes: Sequence[str]
) -> Float[np.ndarray, "sample trait"]:
    """Areas of the classes, then the pose: what boundaries are drawn by."""
    return np.concatenate([areas(masks, len(classes)), poses(masks, classes)], 1)


def trait_names(classes: Sequence[str]) -> list[str]:
    """The traits in order."""
    return [f"{c} area" for c in classes] + ["face: nose down", "face: nose right"]
