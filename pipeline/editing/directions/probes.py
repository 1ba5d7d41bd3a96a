"""Samples moved along directions, and what of them changes: masks by an LSE, colors by the image.

The pass ends at the LSE's last tap, but for the few samples whose colors are looked at.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Literal, overload

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.data.arrays import Group
from pipeline.data.features import Source
from pipeline.data.images import to_uint8
from pipeline.editing.directions.mask_changes import Seen, areas, poses, structure_change
from pipeline.editing.directions.method import Vector, Vectors, move
from pipeline.editing.directions.options import View
from pipeline.editing.semantic.method import within
from pipeline.extractors.networks import LSE, load_extractor
from pipeline.generators.latents import sample_z
from pipeline.generators.taps import record
from pipeline.metrics.color import lab
from pipeline.runtime import pieces
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import sha256

PIECES = pieces.Kind("direction_probes", __name__)
DIRECTIONS_A_TASK = 8
SAMPLES_A_TASK = 64


@dataclass(frozen=True)
class Setup:
    """What it takes to look at moved samples, in this or another process."""

    source: Source
    extractor: str  # fitted LSE, which reads the masks
    view: View

    @property
    def classes(self) -> tuple[str, ...]:
        return self.reader().classes

    def reader(self) -> LSE:
        """The part of the LSE that takes part, loaded once a process."""
        return _reader(self.extractor, self.view.max_tap_resolution, self.source.device)

    def facts(self) -> dict:
        """What every number depends on besides directions and steps."""
        return {
            "files": [_hash(self.source.checkpoint), _hash(self.extractor)],
            "ws": _digest(self.source.latents),
            "compute": self.source.compute,
            "view": asdict(self.view),
        }


@lru_cache(maxsize=2)
def _reader(path: str, max_tap_resolution: int | None, device: str) -> LSE:
    extractor = load_extractor(path, device)
    if not isinstance(extractor, LSE):
        raise InputError(f"{path}, an extractor of another kind", "an LSE", "name a fitted LSE")
    return within(extractor, max_tap_resolution)


@lru_cache(maxsize=16)
def _hash(path: str) -> str:
    return sha256(path)[:16]


@lru_cache(maxsize=4)
def _digest(latents: str) -> str:
    return Group(latents).digest("ws")


Masks = UInt8[np.ndarray, "sample size size"]
Pictures = UInt8[np.ndarray, "sample 3 size size"]


@overload
def render(setup: Setup, ws: Tensor, images: Literal[True]) -> tuple[Masks, Pictures]: ...


@overload
def render(setup: Setup, ws: Tensor, images: Literal[False]) -> tuple[Masks, None]: ...


@torch.inference_mode()
def render(
    setup: Setup, ws: Float[Tensor, "sample num_ws w_dim"], images: bool
) -> tuple[Masks, Pictures | None]:
    """Masks, and images where asked for, else None; batch by batch."""
    generator, reader = setup.source.generator(), setup.reader()
    masks, pictures = [], []
    for part in ws.to(setup.source.device).split(setup.source.batch_size):
        with record(generator, reader.taps) as features:
            drawn = generator.synthesis(part, stop_at=None if images else reader.taps[-1])
        masks.append(reader.predict(features, setup.view.mask_size))
        if drawn is not None:
            pictures.append(to_uint8(drawn, setup.view.mask_size))
    return np.concatenate(masks), np.concatenate(pictures) if images else None


def look(setup: Setup, ws: Float[Tensor, "sample num_ws w_dim"]) -> Seen:
    """Masks of all samples, and colors of the first ones."""
    few = setup.view.color_samples
    masks, images = render(setup, ws[:few], images=True)
    if few < len(ws):
        masks = np.concatenate([masks, render(setup, ws[few:], images=False)[0]])
    return Seen(masks, lab(images))


@lru_cache(maxsize=2)
def unedited(setup: Setup) -> tuple[Tensor, Seen]:
    """The ws of the samples, and what they show as they are."""
    ws = setup.source.ws("test", 0, setup.view.samples)
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


@dataclass(frozen=True, eq=False)
class Probes:
    """Some directions to measure."""

    setup: Setup
    vectors: Vectors
    rows: tuple[int, ...]
    step: float

    @property
    def facts(self) -> list:
        """All that the changes depend on."""
        vectors = self.vectors.round(9).tolist()
        return [self.setup.facts(), vectors, self.rows, round(self.step, 9)]

    def work(self) -> dict[str, np.ndarray]:
        """What each direction changes: arrays [direction, ...]."""
        found = [measure(self.setup, v, self.rows, self.step) for v in self.vectors]
        return {name: np.stack([one[name] for one in found]) for name in found[0]}


@dataclass(frozen=True, eq=False)
class Population:
    """Samples of some seeds, whose masks are to be looked at."""

    setup: Setup
    first_seed: int
    stop_seed: int
    truncation_psi: float

    @property
    def facts(self) -> list:
        """All that the traits depend on."""
        return [self.setup.facts(), self.first_seed, self.stop_seed, self.truncation_psi]

    def work(self) -> dict[str, np.ndarray]:
        """w [sample, w_dim] and the traits of the masks [sample, trait]."""
        setup, generator = self.setup, self.setup.source.generator()
        z = torch.from_numpy(sample_z(range(self.first_seed, self.stop_seed), generator.z_dim))
        with torch.inference_mode():
            ws = generator.mapping(z.to(generator.device), self.truncation_psi)
        masks, _ = render(setup, ws, images=False)
        return {"w": ws[:, 0].cpu().numpy(), "statistics": traits(masks, setup.classes)}


@dataclass(frozen=True)
class Prober:
    """Measures directions; what was measured is a piece in the store, read by later runs."""

    setup: Setup
    num_workers: int = 0

    def changes(
        self, vectors: Vectors, rows: Sequence[int], step: float, what: str
    ) -> dict[str, np.ndarray]:
        """`measure` of every direction: arrays [direction, ...]."""
        starts = range(0, len(vectors), DIRECTIONS_A_TASK)
        tasks = [
            Probes(self.setup, vectors[i : i + DIRECTIONS_A_TASK], tuple(rows), step)
            for i in starts
        ]
        return self._run(tasks, what)

    def population(
        self, count: int, truncation_psi: float, first_seed: int
    ) -> dict[str, np.ndarray]:
        """w [sample, w_dim] of new samples, and the areas and poses of their masks."""
        last = first_seed + count
        tasks = [
            Population(self.setup, start, min(start + SAMPLES_A_TASK, last), truncation_psi)
            for start in range(first_seed, last, SAMPLES_A_TASK)
        ]
        return self._run(tasks, "segmenting samples for boundaries")

    def _run(self, tasks: Sequence[Probes | Population], what: str) -> dict[str, np.ndarray]:
        device = self.setup.source.device
        parts = pieces.run(PIECES, tasks, device, self.num_workers, what)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def traits(
    masks: UInt8[np.ndarray, "sample size size"], classes: Sequence[str]
) -> Float[np.ndarray, "sample trait"]:
    """Areas of the classes, then the pose: what boundaries are drawn by."""
    return np.concatenate([areas(masks, len(classes)), poses(masks, classes)], 1)


def trait_names(classes: Sequence[str]) -> list[str]:
    """The traits in order."""
    return [f"{c} area" for c in classes] + ["face: nose down", "face: nose right"]
