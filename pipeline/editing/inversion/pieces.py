"""The inversion of one photo as a piece of work, kept in the store."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8

from pipeline.data.features import Source
from pipeline.data.images import to_float
from pipeline.editing.inversion import perceptual
from pipeline.editing.inversion.method import Looks, Whitening, compare, invert, whiten
from pipeline.editing.inversion.options import Inversion
from pipeline.extractors.appearance import read_appearance
from pipeline.extractors.networks import LSE
from pipeline.runtime import pieces as kept
from pipeline.runtime.costs import timed
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import sha256
from pipeline.runtime.weights import read_safetensors

PIECES = kept.Kind("inversions", __name__)
DISTANCES = tuple(f"distance_{name}" for name in Looks._fields)

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Piece:
    """A photo to find the latents of."""

    source: Source  # its latents are not read
    appearance: str  # linear reading of the generator's images
    photo: UInt8[np.ndarray, "3 size size"]  # aligned, at the reading's size
    rule: Inversion

    @property
    def facts(self) -> dict:
        """All that the latents depend on; where files lie does not matter."""
        return {
            "generator": _hash(self.source.checkpoint),
            "appearance": _hash(self.appearance),
            "perceptual": perceptual.SHA256,
            "compute": self.source.compute,
            "photo": hashlib.sha256(np.ascontiguousarray(self.photo).data).hexdigest(),
            "rule": asdict(self.rule),
        }

    def work(self) -> Arrays:
        """ws [num_ws, w_dim], losses [steps + 1], and the distances of image and photo."""
        found, spent = timed(_found, self)
        return found | {name: np.array(value) for name, value in spent.items()}


def _found(piece: Piece) -> Arrays:
    generator, device = piece.source.generator(), piece.source.device
    network = perceptual.load_perceptual(device)
    photos, rule = to_float(piece.photo[None]).to(device), piece.rule
    whitening = _whitening(piece.source, rule.samples, rule.seed)
    reading = load_appearance(piece.appearance, piece.source)
    found = invert(generator, reading, network, photos, rule, whitening)
    ws = whitening.ws(found.best)
    with torch.inference_mode():
        image = F.interpolate(generator.synthesis(ws), photos.shape[-2:], mode="area")
        looks = compare(network, photos)(image)
    arrays = {"ws": ws[0], "losses": found.losses[:, 0]}
    arrays |= {f"distance_{name}": value[0] for name, value in looks._asdict().items()}
    return {name: value.cpu().numpy() for name, value in arrays.items()}


@lru_cache(maxsize=1)
def _whitening(source: Source, samples: int, seed: int) -> Whitening:
    """Found once a process."""
    return whiten(source.generator(), samples, seed)


@lru_cache(maxsize=1)
def load_appearance(path: str, source: Source) -> LSE:
    """The linear reading, loaded once a process; InputError if it is another generator's."""
    found = read_appearance(path, source.device)
    theirs, ours = read_safetensors(path)[1].get("generator"), _hash(source.checkpoint)
    if theirs not in (None, ours) or any(t not in source.generator().taps for t in found.taps):
        raise InputError(
            f"{path}, the linear reading of generator {theirs}",
            f"that of {source.checkpoint}, {ours}",
            "name the appearance and the generator of one study",
        )
    return found


@lru_cache(maxsize=8)
def _hash(path: str) -> str:
    return sha256(path)[:16]


def invert_photos(
    source: Source,
    appearance: str,
    photos: UInt8[np.ndarray, "sample 3 size size"],  # aligned, at the reading's size
    rule: Inversion,
    num_workers: int = 0,
) -> list[Arrays]:
    """What `Piece.work` makes of each photo; what an earlier run has finished is read."""
    load_appearance(appearance, source)  # before any work
    perceptual.load_perceptual(source.device)  # fetched once, not by every process
    todo = [Piece(source, appearance, photo, rule) for photo in photos]
    return kept.run(PIECES, todo, source.device, num_workers, "inverting photos")


def stacked(found: Sequence[Arrays], name: str) -> np.ndarray:
    """One array of all photos, [sample, ...]."""
    return np.stack([one[name] for one in found])
