"""Pieces of conditional sampling: some methods on a few samples, each kept in the store."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.data.features import Source
from pipeline.data.images import to_float, to_uint8
from pipeline.editing.optimize import ByExtractor, ByExtractors, ByTeacher, Forward, Segmenter
from pipeline.editing.sampling.method import sample_conditionally
from pipeline.editing.sampling.options import Search
from pipeline.extractors.networks import load_extractor
from pipeline.runtime import pieces as kept
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import sha256
from pipeline.teachers.labels import identity
from pipeline.teachers.registry import Teacher, load_teacher

PIECES = kept.Kind("conditional_samples", __name__)
KEYS = 4  # of a piece on a CPU: more are little faster, and more is lost by a kill
MOMENTS = ("before", "last", "best")  # of a search: its start, its last z, its lowest loss
LOOKED_AT = ("before", "last")  # by teacher and judge


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


@dataclass(frozen=True, eq=False)
class Piece:
    """Methods of a kind on some (target, sample) pairs."""

    methods: tuple[Method, ...]  # several: few-shot LSEs, which are searched with as one batch
    source: Source
    judges: Judges
    targets: np.ndarray  # [pair, size, size]
    keys: tuple[tuple[int, int], ...]
    search: Search
    keep: tuple[int, ...] = ()  # also look after so many steps

    @property
    def facts(self) -> dict:
        """All that the results depend on; where files lie does not matter."""
        judges = self.judges
        return {
            "generator": _hash(self.source.checkpoint),
            "compute": self.source.compute,
            "methods": [[method.name, _hash(method.weights)] for method in self.methods],
            "judges": {who: _hash(path) for who, path in judges.files.items()},
            "labels": identity(judges.labels),
            "keep_classes": judges.keep,
            "targets": hashlib.sha256(np.ascontiguousarray(self.targets).data).hexdigest(),
            "keys": self.keys,
            "search": asdict(self.search),
            "looks": self.keep,
        }

    def work(self) -> dict[str, np.ndarray]:
        """The results."""
        return search(self)


@lru_cache(maxsize=64)
def _hash(path: str) -> str:
    return sha256(path)[:16]


@lru_cache(maxsize=3)
def load_judge(path: str, judges: Judges, device: str) -> Teacher:
    """The teacher or the judge, loaded once a process."""
    return load_teacher(path, judges.labels, device, judges.keep)


@lru_cache(maxsize=1)
def segmenter(methods: tuple[Method, ...], judges: Judges, device: str) -> Segmenter:
    """The methods' segmenter; InputError if it does not know the targets' classes."""
    if methods[0].name == "teacher":
        return ByTeacher(load_judge(methods[0].weights, judges, device))
    loaded = [load_extractor(method.weights, device) for method in methods]
    wanted = load_judge(judges.judge, judges, device).classes
    for method, extractor in zip(methods, loaded, strict=True):
        if extractor.classes != wanted:
            raise InputError(
                f"{method.weights} with classes {', '.join(extractor.classes)}",
                f"those of the targets: {', '.join(wanted)}",
                "fit the extractor on masks of this label space",
            )
    return ByExtractors(tuple(loaded)) if len(loaded) > 1 else ByExtractor(loaded[0])


@torch.no_grad()
def look(piece: Piece, z: Float[Tensor, "sample z_dim"]) -> dict[str, np.ndarray]:
    """Images of z, and their masks by every judge; a z that occurs again is looked at once."""
    distinct, place = np.unique(z.cpu().numpy(), axis=0, return_inverse=True)
    generator, judges, size = piece.source.generator(), piece.judges, piece.targets.shape[-1]
    forward = Forward(generator, "z", (), True, piece.search.truncation_psi)
    step, parts = piece.source.batch_size, []
    for rows in torch.from_numpy(distinct).to(z.device).split(step):
        parts.append(to_uint8(forward(rows).pictures, size))
    images = np.concatenate(parts)
    found = {"images": images}
    for who, weights in judges.files.items():
        found[who] = load_judge(weights, judges, piece.source.device).label(to_float(images), size)
    return {name: values[place.ravel()] for name, values in found.items()}


def search(piece: Piece) -> dict[str, np.ndarray]:
    """Search, and look at the images found with every judge.

    Arrays are {z,own}_<moment> and, where it is looked at, {images,teacher,judge}_<moment>, and the
    losses; N rows each, a method's pairs after another's.
    """
    device, times = piece.source.device, len(piece.methods)
    generator, own = piece.source.generator(), segmenter(piece.methods, piece.judges, device)
    targets = np.tile(piece.targets, (times, 1, 1))
    z_0, found = sample_conditionally(generator, own, targets, piece.keys, piece.search, piece.keep)
    moments = {"before": z_0, "last": found.last, "best": found.best}
    looked_at: tuple[str, ...] = LOOKED_AT
    if piece.keep:
        moments = {f"step{k}": z for k, z in found.kept.items()}
        looked_at = tuple(moments)
    arrays = {"losses": found.losses.T.cpu().numpy()}
    forward = Forward(generator, "z", tuple(own.taps), own.images, piece.search.truncation_psi)
    for moment, z in moments.items():
        with torch.no_grad():
            logits = own.logits(forward(z), targets.shape[-1])
        arrays[f"z_{moment}"] = z.cpu().numpy()
        arrays[f"own_{moment}"] = logits.argmax(1).to(torch.uint8).cpu().numpy()
    seen = look(piece, torch.cat([moments[name] for name in looked_at]))
    for name, values in seen.items():
        shares = np.split(values, len(looked_at))
        arrays |= {f"{name}_{m}": part for m, part in zip(looked_at, shares, strict=True)}
    return arrays


def pieces(
    methods: tuple[Method, ...],
    source: Source,
    judges: Judges,
    targets: UInt8[np.ndarray, "target size size"],
    samples: int,
    how: Search,
    keep: Sequence[int] = (),
) -> list[Piece]:
    """Every sample of every target for some methods, a few at a time."""
    keys = [(t, s) for t in range(len(targets)) for s in range(samples)]
    on_gpu = max(1, source.batch_size // len(methods))
    step = min(KEYS, source.batch_size) if source.device == "cpu" else on_gpu
    if methods[0].name == "teacher":  # gradients through images are too rough in bfloat16
        source = replace(source, compute="float32")
    found = []
    for start in range(0, len(keys), step):
        some = tuple(keys[start : start + step])
        masks = targets[[target for target, _ in some]]
        found.append(Piece(methods, source, judges, masks, some, how, tuple(keep)))
    return found


def collect(
    found: Sequence[Piece], results: Mapping[Piece, Mapping[str, np.ndarray]], num_targets: int
) -> dict[Method, dict[str, np.ndarray]]:
    """The arrays of each method's pieces, [target, sample, ...]."""
    parts: dict[Method, list[Mapping[str, np.ndarray]]] = {m: [] for m in found[0].methods}
    for piece in found:
        arrays = results[piece].items()
        shares = {name: np.split(values, len(piece.methods)) for name, values in arrays}
        for i, method in enumerate(piece.methods):
            parts[method].append({name: share[i] for name, share in shares.items()})
    wholes = {
        method: {name: np.concatenate([part[name] for part in own]) for name in own[0]}
        for method, own in parts.items()
    }
    return {
        method: {name: x.reshape(num_targets, -1, *x.shape[1:]) for name, x in whole.items()}
        for method, whole in wholes.items()
    }


def run_pieces(todo: Sequence[Piece], num_workers: int) -> dict[Piece, dict[str, np.ndarray]]:
    """The arrays of every piece; what no earlier run has finished is made, the slowest first."""
    ordered = sorted(todo, key=lambda piece: piece.methods[0].name != "teacher")
    device = todo[0].source.device
    found = kept.run(PIECES, ordered, device, num_workers, "sampling conditionally")
    return dict(zip(ordered, found, strict=True))
