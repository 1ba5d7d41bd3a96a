"""What is edited: a generator with its teacher and judge, and samples chosen by rule."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from pipeline.data.arrays import Group
from pipeline.data.images import to_float, to_uint8
from pipeline.editing.options import Start
from pipeline.editing.semantic.edits import Edit, Target, apply_edit, check_edit
from pipeline.editing.semantic.method import within
from pipeline.editing.semantic.options import Rule
from pipeline.editing.semantic.shapes import Inapplicable
from pipeline.editing.semantic.strokes import class_colors, stroke_colors
from pipeline.extractors.networks import LSE, load_extractor
from pipeline.generators.latents import sample_z
from pipeline.generators.registry import Generator, load_generator
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import sha256
from pipeline.teachers.labels import identity
from pipeline.teachers.registry import Teacher, load_teacher

IMAGE_METHODS = ("color", "teacher")  # synthesize the image in every step: several times the cost
COLOR_SAMPLES = 256  # training samples that the mean colors of classes are taken from


@dataclass(frozen=True)
class Setup:
    """What it takes to edit and to judge samples, in this or another process."""

    checkpoint: str
    teacher: str  # its masks are what is edited; in the loop of SIE(teacher)
    judge: str | None  # sees no mask of the teacher's; None: no scores by a judge
    label_size: int  # side of masks, px
    extractors: Mapping[str, str] = field(default_factory=dict)  # {method: fitted LSE}
    loop_tap_resolution: int | None = None  # px of the LSE's taps in the loop; None: all
    rule: Rule = field(default_factory=Rule)
    labels: str = "celebamask15"
    compute: str = "float32"
    device: str = "cpu"
    image_samples: int | None = None  # of each edit, by IMAGE_METHODS; None: all

    def __post_init__(self) -> None:
        if self.image_samples is not None and self.image_samples < 1:
            raise InputError(
                f"image_samples {self.image_samples}",
                "at least 1: color and the teacher are what extractors are compared with",
                "change image_samples",
            )

    @property
    def together(self) -> int:
        """Samples edited as one batch: on a CPU about 128 px square in all."""
        return max(1, (128 // self.generator().resolution) ** 2) if self.device == "cpu" else 8

    def generator(self) -> Generator:
        """The frozen generator, loaded once a process."""
        return _generator(self.checkpoint, self.device, self.compute)

    def segmenter(self, path: str) -> Teacher:
        """The teacher or the judge, loaded once a process."""
        return _teacher(path, self.labels, self.device)

    def extractor(self, method: str) -> LSE:
        """The part of a method's extractor that takes part in edits, loaded once a process."""
        return _extractor(str(self.extractors[method]), self.loop_tap_resolution, self.device)

    @property
    def methods(self) -> tuple[str, ...]:
        """The ways to edit: by color, by the teacher's mask, and by that of each extractor."""
        return (*IMAGE_METHODS, *self.extractors)

    def facts(self, method: str) -> dict:
        """What a method's edits depend on besides the sample and the edit."""
        files = [self.checkpoint, self.teacher, self.judge, self.extractors.get(method)]
        return {
            "method": method,
            "files": [path and _hash(str(path)) for path in files],
            "rule": asdict(self.rule),
            "label_size": self.label_size,
            "loop_tap_resolution": self.loop_tap_resolution,
            "labels": identity(self.labels),
            "compute": self.compute,
        }


@lru_cache(maxsize=2)  # in bfloat16 and, for IMAGE_METHODS, in float32
def _generator(checkpoint: str, device: str, compute: str) -> Generator:
    return load_generator(checkpoint, device=device, dtype=compute)


@lru_cache(maxsize=2)
def _teacher(path: str, labels: str, device: str) -> Teacher:
    return load_teacher(path, labels, device)


@lru_cache(maxsize=4)
def _extractor(path: str, loop_tap_resolution: int | None, device: str) -> LSE:
    extractor = load_extractor(path, device)
    if not isinstance(extractor, LSE):
        raise InputError(f"{path}, an extractor of another kind", "an LSE", "name a fitted LSE")
    return within(extractor, loop_tap_resolution)


@lru_cache(maxsize=16)
def _hash(path: str) -> str:
    return sha256(path)[:16]


@dataclass(frozen=True)
class Case:
    """One edit of one sample, with all that every method starts from."""

    edit: str
    row: int  # of the split
    seed: int
    z: Float32[np.ndarray, " z_dim"]
    image: UInt8[np.ndarray, "3 size size"]
    own: UInt8[np.ndarray, "size size"]  # the teacher's mask of it
    target: Target
    stroke: UInt8[np.ndarray, "3 size size"]

    @property
    def digest(self) -> str:
        """16 hex digits over what the methods read."""
        found = hashlib.sha256(self.edit.encode())
        for values in (self.z, self.image, self.target.mask, self.stroke):
            found.update(np.ascontiguousarray(values).tobytes())
        return found.hexdigest()[:16]


@dataclass(frozen=True)
class Samples:
    """Samples that edits may be tried on, in that order, and colors for classes they lack."""

    z: Float32[np.ndarray, "sample z_dim"]
    seeds: Int64[np.ndarray, " sample"]
    colors: Float[np.ndarray, "class 3"]
    label_size: int  # side of masks, px


def open_samples(
    latents: str | Path, images: str | Path, masks: str | Path, checkpoint: str | Path, count: int
) -> Samples:
    """The first `count` samples of the test split; colors are means over training samples."""
    group, labels = Group(latents), Group(masks)
    check_latents(group, checkpoint)
    few, pictures = slice(COLOR_SAMPLES), Group(images)
    shown = labels.read("train", "masks", few)
    classes = labels.attributes["classes"]
    return Samples(
        group.read("test", "z", slice(count)),
        group.read("test", "seeds", slice(count)),
        class_colors(pictures.read("train", "images", few), shown, len(classes)),
        shown.shape[-1],
    )


def pick_z(setup: Setup, start: Start) -> Float32[np.ndarray, " z_dim"]:
    """One sample's z: a row of a split, or drawn from a seed."""
    if start.latents is None:
        return sample_z([start.seed], setup.generator().z_dim)[0]
    group = Group(start.latents)
    check_latents(group, setup.checkpoint)
    return picked(group, start)


def picked(latents: Group, start: Start) -> Float32[np.ndarray, " z_dim"]:
    """The z of a row of a split; InputError if there is no such row."""
    found = latents.read(start.split, "z")
    if not 0 <= start.row < len(found):
        raise InputError(
            f"row {start.row} of {start.split}", f"0 to {len(found) - 1}", "name another row"
        )
    return found[start.row]


def check_latents(latents: Group, checkpoint: str | Path) -> None:
    """InputError if the latents are another generator's."""
    theirs, ours = latents.attributes.get("generator"), _hash(str(checkpoint))
    if theirs not in (None, ours):
        raise InputError(
            f"latents {latents.path} of generator {theirs}",
            f"those of {checkpoint}, {ours}",
            "name latents and a generator of the same study",
        )


def render(setup: Setup, ws: Tensor) -> UInt8[np.ndarray, "sample 3 size size"]:
    """The samples' images at the size of masks, area-averaged."""
    generator = setup.generator()  # loaded outside inference mode: edits take gradients through it
    with torch.inference_mode():
        images = generator.synthesis(ws.to(setup.device))
    return to_uint8(images, setup.label_size)


def segment(
    setup: Setup, path: str, images: UInt8[np.ndarray, "sample 3 size size"]
) -> UInt8[np.ndarray, "sample size size"]:
    """The masks of images, by the teacher or the judge of this path."""
    return setup.segmenter(path).label(to_float(images), setup.label_size)


def see(setup: Setup, z: Float32[np.ndarray, " z_dim"]) -> tuple[np.ndarray, np.ndarray]:
    """A sample's image, and the teacher's mask of it: what a user edits."""
    generator = setup.generator()
    with torch.inference_mode():
        ws = generator.mapping(
            torch.from_numpy(z)[None].to(setup.device), setup.rule.truncation_psi
        )
    images = render(setup, ws)
    return images[0], segment(setup, setup.teacher, images)[0]


def make_case(
    setup: Setup,
    edit: Edit,
    z: Float32[np.ndarray, " z_dim"],
    colors: Float[np.ndarray, "class 3"],
    seen: tuple[np.ndarray, np.ndarray] | None = None,  # what `see` gave; None: look now
    row: int = 0,
    seed: int = 0,
) -> Case:
    """An edit of a sample; Inapplicable if it means nothing there."""
    image, own = seen or see(setup, z)
    target = apply_edit(edit, own, setup.segmenter(setup.teacher).classes)
    stroke = stroke_colors(image, own, target, colors)
    return Case(edit.name, row, seed, z, image, own, target, stroke)


def choose_cases(
    setup: Setup,
    edits: Sequence[Edit],
    source: Samples,
    count: int,  # samples of each edit
) -> tuple[list[Case], dict[str, dict]]:
    """For each edit, the first samples on which it applies; and how many it was tried on."""
    for edit in edits:
        check_edit(edit, setup.segmenter(setup.teacher).classes)
    found: dict[str, list[Case]] = {edit.name: [] for edit in edits}
    tried = dict.fromkeys(found, 0)
    for row, one in enumerate(source.z):
        missing = [edit for edit in edits if len(found[edit.name]) < count]
        if not missing:
            break
        seen = see(setup, one)
        for edit in missing:
            tried[edit.name] += 1
            try:
                case = make_case(setup, edit, one, source.colors, seen, row, int(source.seeds[row]))
            except Inapplicable:
                continue
            found[edit.name].append(case)
    cases = [case for several in found.values() for case in several]
    if not cases:
        raise InputError(
            f"{len(edits)} edits of which none applies to the first {len(source.z)} samples",
            "at least one that does",
            "raise rows, or change the edits",
        )
    return cases, {name: {"tried": tried[name], "found": len(found[name])} for name in found}
