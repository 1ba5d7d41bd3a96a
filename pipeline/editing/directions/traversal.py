"""One sample moved along a direction of one's choice, with its masks and latents as files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.data.arrays import Group
from pipeline.data.images import to_uint8
from pipeline.editing.directions.method import Vector, move, project_out, to_positions
from pipeline.editing.directions.options import Traversal
from pipeline.editing.options import Start
from pipeline.editing.semantic.cases import check_latents, picked
from pipeline.extractors.networks import Extractor, load_extractor
from pipeline.generators.latents import sample_z
from pipeline.generators.registry import Generator, load_generator
from pipeline.generators.taps import record
from pipeline.runtime.errors import InputError, choose
from pipeline.runtime.files import sha256
from pipeline.runtime.weights import read_safetensors


@dataclass(frozen=True)
class Direction:
    """A unit vector, the rows of ws that it moves, and the sd of w along it."""

    name: str
    vector: Vector
    rows: tuple[int, ...]
    sd: float


class Directions:
    """What find_directions wrote: vectors by name, `RANGE/METHOD/INDEX` or `all/boundary/TRAIT`."""

    def __init__(self, path: str | Path):
        self.tensors, self.facts = read_safetensors(path)
        if "rows" not in self.facts:
            raise InputError(
                f"{path}, which holds no directions",
                "a file of find_directions",
                "name data/directions/<study>/directions.safetensors",
            )
        self.path = path

    def check(self, checkpoint: str | Path) -> None:
        """InputError if they are another generator's."""
        if (own := sha256(checkpoint)[:16]) != self.facts["generator"]:
            raise InputError(
                f"directions {self.path} of generator {self.facts['generator']}",
                f"those of {checkpoint}, {own}",
                "name directions and a generator of one study",
            )

    def find(self, name: str) -> Direction:
        """The direction of a name; InputError lists what there is."""
        group, _, which = name.rpartition("/")
        groups = [key for key, value in self.tensors.items() if value.ndim == 2]
        choose("directions", group, groups)
        names, vectors = self.facts["names"].get(group, []), self.tensors[group].double().numpy()
        index = names.index(which) if which in names else int(which) if which.isdigit() else -1
        if not 0 <= index < len(vectors):
            known = f", or {', '.join(names)}" if group.endswith("boundary") else ""
            raise InputError(
                f"direction {name!r}",
                f"{group}/0 to {group}/{len(vectors) - 1}{known}",
                "name one of these",
            )
        rows = tuple(self.facts["rows"][group.split("/")[0]])
        return Direction(name, vectors[index], rows, float(self.tensors[f"{group}/sd"][index]))

    def without(self, one: Direction, others: Sequence[str]) -> Direction:
        """The part of a direction that leaves others alone (InterFaceGAN's conditional edit).

        Alphas stay in sd of w along the whole direction.
        """
        if not others:
            return one
        apart = np.stack([self.find(name).vector for name in others])
        return Direction(one.name, project_out(one.vector, apart), one.rows, one.sd)


def traverse(
    ws: Float[Tensor, "1 num_ws w_dim"],
    direction: Direction,
    alphas: Sequence[float],  # in sd of w along the direction
    origin: Vector | None,  # alphas count from the hyperplane through it; None: from the sample
) -> Float[Tensor, "alpha num_ws w_dim"]:
    """The ws of a sample moved along a direction, one for each alpha."""
    amounts = np.array(alphas, float) * direction.sd
    if origin is not None:
        w = ws[0, direction.rows[0]].double().cpu().numpy() - origin
        amounts = (to_positions(w, direction.vector, amounts) - w) @ direction.vector
    return move(ws.repeat(len(amounts), 1, 1), direction.vector, direction.rows, amounts)


@dataclass(frozen=True)
class Strip:
    """What a traversal shows, one of each for every alpha."""

    ws: Float[Tensor, "alpha num_ws w_dim"]
    images: UInt8[np.ndarray, "alpha 3 height width"]
    masks: UInt8[np.ndarray, "alpha size size"] | None


@torch.inference_mode()
def draw(
    generator: Generator,
    ws: Float[Tensor, "alpha num_ws w_dim"],
    extractor: Extractor | None,  # reads masks; None: none
    size: int,  # of masks, px
) -> Strip:
    """Images at full resolution, and masks."""
    images, masks = [], []
    for one in ws:
        with record(generator, extractor.taps if extractor else ()) as features:
            images.append(to_uint8(generator.synthesis(one[None]), generator.resolution))
        if extractor is not None:
            masks.append(extractor.predict(features, size))
    return Strip(ws, np.concatenate(images), np.concatenate(masks) if masks else None)


def start_ws(
    generator: Generator, checkpoint: str | Path, start: Start, truncation_psi: float
) -> Float[Tensor, "1 num_ws w_dim"]:
    """A sample's ws; InputError if the latents are another generator's, or lack the row."""
    if start.latents is None:
        z = sample_z([start.seed], generator.z_dim)
    else:
        group = Group(start.latents)
        check_latents(group, checkpoint)
        z = picked(group, start)[None]
    with torch.inference_mode():
        return generator.mapping(torch.from_numpy(z).to(generator.device), truncation_psi)


def traverse_file(
    checkpoint: Path,
    directions: Path,
    traversal: Traversal,
    start: Start,
    extractor: Path | None,
    compute: str,
    device: str,
) -> tuple[Strip, tuple[str, ...]]:
    """A traversal from files, and the classes of its masks."""
    known = Directions(directions)
    known.check(checkpoint)
    direction = known.without(known.find(traversal.direction), traversal.without)
    generator = load_generator(checkpoint, device=device, dtype=compute)
    psi = traversal.truncation_psi
    ws = start_ws(
        generator, checkpoint, start, known.facts["truncation_psi"] if psi is None else psi
    )
    origin = generator.w_avg.double().cpu().numpy() if traversal.absolute else None
    moved = traverse(ws, direction, traversal.alphas, origin)
    reader = None if extractor is None else load_extractor(extractor, device)
    if reader and (foreign := [tap for tap in reader.taps if tap not in generator.taps]):
        raise InputError(
            f"{extractor}, which reads tap {foreign[0].name}",
            f"an extractor of {checkpoint}",
            "name an extractor of the same study",
        )
    strip = draw(generator, moved, reader, traversal.mask_size)
    return strip, reader.classes if reader else ()
