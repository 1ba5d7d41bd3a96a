"""Semantic-Conditional Sampling for a mask and a look: the mean color that each class should have.

Colors are read linearly from feature maps (extractors/appearance.py), so no image is synthesized in
the search. The mask says what is where, the look of what color it is; the rest stays free.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

from pipeline.data.arrays import Group
from pipeline.data.images import to_float, to_uint8
from pipeline.data.mask_files import read_mask
from pipeline.data.photo_files import read_photo
from pipeline.editing.optimize import Forward, Optimized, Rendered, Segmenter, optimize_latents
from pipeline.editing.sampling.look_options import LookChoice
from pipeline.editing.sampling.method import PENALTY, Targets, draw_candidates
from pipeline.editing.sampling.options import Search
from pipeline.extractors.appearance import read_appearance
from pipeline.extractors.networks import LSE
from pipeline.generators.contract import Generator
from pipeline.generators.taps import Tap
from pipeline.runtime.errors import InputError

MIN_SHARE = 0.002  # of the pixels: a smaller class has no color that could be told


@dataclass(frozen=True)
class Look:
    """Mean colors of the classes of an image."""

    colors: Float[Tensor, "class 3"]  # red, green, blue in [-1, 1]
    shares: Float[Tensor, " class"]  # of the image's pixels


@dataclass(frozen=True)
class Wish:
    """A look that samples should have, how it is read, and how much it counts."""

    look: Look
    appearance: LSE  # of red, green and blue
    weight: float  # of the squared distance of colors beside the cross-entropy of the mask


def mean_colors(
    images: Float[Tensor, "sample 3 height width"],
    shares: Float[Tensor, "sample class height width"],  # of each class in a pixel
) -> Float[Tensor, "sample class 3"]:
    """The mean color of each class; differentiable in the images."""
    sums = torch.einsum("nchw,nkhw->nkc", images, shares)
    return sums / shares.sum((2, 3)).clamp_min(1e-9)[..., None]


def pixel_shares(
    masks: Integer[Tensor, "sample rows rows"], classes: int, size: int
) -> Float[Tensor, "sample class size size"]:
    """How much of each of size x size pixels a class covers."""
    return F.interpolate(F.one_hot(masks.long(), classes).movedim(3, 1).float(), size, mode="area")


def look_of(
    image: Float[Tensor, "3 size size"], mask: Integer[Tensor, "rows rows"], classes: int
) -> Look:
    """The look of an image whose classes are known."""
    shares = pixel_shares(mask[None], classes, image.shape[-1]).to(image.device)
    return Look(mean_colors(image[None], shares)[0], shares.mean((0, 2, 3)))


@torch.inference_mode()
def look_of_sample(
    generator: Generator,
    segmenter: Segmenter,
    appearance: LSE,
    ws: Float[Tensor, "1 num_ws w_dim"],
) -> Look:
    """The look of a sample, by its mask and its colors as both are read from feature maps."""
    taps = _all_taps(generator, segmenter, appearance)
    rendered = Forward(generator, "w_plus", taps, segmenter.images)(ws.to(generator.device))
    size = appearance.taps[-1].resolution
    mask = segmenter.logits(rendered, size).argmax(1)[0]
    image = appearance.logits(rendered.features, size)[0]
    return look_of(image, mask, len(segmenter.classes))


def read_wish(generator: Generator, segmenter: Segmenter, choice: LookChoice) -> Wish | None:
    """The look that was chosen, if any; InputError for files that do not fit."""
    if choice.look is None:
        return None
    if choice.appearance is None:
        raise InputError(
            f"look {choice.look} without an appearance",
            "the linear reading of the generator's images",
            "name one by --appearance, such as data/appearance/ffhq.safetensors",
        )
    appearance = _open_appearance(choice.appearance, generator)
    if not choice.look.isdecimal():
        look = _look_of_file(Path(choice.look), segmenter.classes, appearance.taps[-1].resolution)
    else:
        ws = _read_ws(choice, generator)
        look = look_of_sample(generator, segmenter, appearance, ws)
    return Wish(look, appearance, choice.look_weight)


def _open_appearance(path: Path, generator: Generator) -> LSE:
    found = read_appearance(path, generator.device)
    if foreign := [tap for tap in found.taps if tap not in generator.taps]:
        raise InputError(
            f"{path}, which reads tap {foreign[0].name} with {foreign[0].channels} channels",
            f"taps of the generator, {', '.join(tap.name for tap in generator.taps)}",
            "name the appearance of the same study",
        )
    return found


def _look_of_file(path: Path, classes: Sequence[str], size: int) -> Look:
    image, beside = read_photo(path), path.with_name(f"{path.stem}_mask.png")
    if image.shape[0] != image.shape[1] or not beside.is_file():
        raise InputError(
            f"look {path} of {image.shape[1]}x{image.shape[0]} px"
            + ("" if beside.is_file() else f", without {beside}"),
            "a square image with its mask of class ids beside it",
            "name one that invert_photo or sample_conditionally wrote",
        )
    small = to_uint8(to_float(image.transpose(2, 0, 1)[None]), size)
    mask = torch.from_numpy(read_mask(beside, classes))
    return look_of(to_float(small)[0], mask, len(classes))


def _read_ws(choice: LookChoice, generator: Generator) -> Float[Tensor, "1 num_ws w_dim"]:
    if choice.latents is None:
        raise InputError(
            f"look {choice.look}, a row", "its file of latents", "name it by --latents"
        )
    group, row = Group(choice.latents), int(choice.look or 0)
    count = group.splits.get(choice.split, 0)
    ws = group.read(choice.split, "ws", slice(row, row + 1)) if row < count else np.empty(0)
    if ws.shape[1:] != (generator.num_ws, generator.w_dim):
        raise InputError(
            f"row {row} of {count} in {choice.split} of {choice.latents}, ws {list(ws.shape[1:])}",
            f"a row that is there, of {generator.num_ws} x {generator.w_dim}",
            "change look, split or latents",
        )
    return torch.from_numpy(ws)


def sample_with_look(
    generator: Generator,
    segmenter: Segmenter,
    wish: Wish,
    targets: Targets,
    keys: Sequence[tuple[int, int]],  # (target, sample) of each row, which seeds its candidates
    search: Search,
) -> tuple[Float[Tensor, "sample z_dim"], Optimized]:
    """z_0, the candidate of each row that is closest, and what the search made of it.

    The loss is that of `sample_conditionally`, plus the squared distance of the mean colors in the
    target's classes from the look's, averaged over the classes that both show.
    """
    taps = _all_taps(generator, segmenter, wish.appearance)
    forward = Forward(generator, "z", taps, segmenter.images, search.truncation_psi)
    wanted = torch.from_numpy(targets).long().to(generator.device)
    likeness = _likeness(wish, wanted, len(segmenter.classes))

    def fit(rendered: Rendered) -> Float[Tensor, " sample"]:
        logits = segmenter.logits(rendered, targets.shape[-1])
        entropy = F.cross_entropy(logits, wanted, reduction="none").mean((1, 2))
        return entropy + wish.weight * likeness(rendered)

    drawn = torch.from_numpy(draw_candidates(keys, search, generator.z_dim)).to(generator.device)
    with torch.no_grad():
        losses = torch.stack([fit(forward(forward.start(z))) for z in drawn.unbind(1)], 1)
    z_0 = drawn[torch.arange(len(drawn)), losses.argmin(1).to(drawn.device)]

    def loss(rendered: Rendered) -> Float[Tensor, " sample"]:
        z = rendered.latents
        return fit(rendered) + PENALTY * ((z - z_0).square().sum(1) + z.square().sum(1))

    return z_0, optimize_latents(
        forward, forward.start(z_0), loss, search.steps, search.learning_rate
    )


def _all_taps(generator: Generator, segmenter: Segmenter, appearance: LSE) -> tuple[Tap, ...]:
    """The taps of both readers, in the generator's order."""
    read = {*segmenter.taps, *appearance.taps}
    return tuple(tap for tap in generator.taps if tap in read)


def _likeness(
    wish: Wish, targets: Integer[Tensor, "sample rows rows"], classes: int
) -> Callable[[Rendered], Float[Tensor, " sample"]]:
    """A function from what was rendered to the squared distance of its colors from the look's."""
    look, size = wish.look, wish.appearance.taps[-1].resolution
    areas = pixel_shares(targets, classes, size)
    shown = (areas.mean((2, 3)) >= MIN_SHARE) & (look.shares >= MIN_SHARE)
    if not shown.any(1).all():
        raise InputError(
            "a target that shows no class of the look",
            "a class that both show",
            "choose another look or target",
        )
    weights = shown / shown.sum(1, keepdim=True)

    def likeness(rendered: Rendered) -> Float[Tensor, " sample"]:
        colors = mean_colors(wish.appearance.logits(rendered.features, size), areas)
        return ((colors - look.colors).square().sum(2) * weights).sum(1)

    return likeness
