"""The one latent optimization loop of Semantic-Conditional Sampling and Semantic Image Editing
(Xu & Zheng, CVPR 2021, section 4.2 and appendices G, H): frozen networks, Adam on latents alone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.extractors.networks import Extractor, Window
from pipeline.generators.contract import Generator
from pipeline.generators.taps import Tap, record
from pipeline.runtime.errors import InputError, choose
from pipeline.teachers.registry import Teacher


@dataclass(frozen=True)
class Space:
    """What is optimized: the latents that a z begins as, and the ws that latents stand for."""

    start: Callable[[Generator, Tensor, float], Tensor]  # generator, z [N, z_dim], psi
    ws: Callable[[Generator, Tensor, float], Tensor]  # generator, latents, psi


def _layers_to_ws(generator: Generator, latents: Tensor, truncation_psi: float) -> Tensor:
    """One z a layer [N, num_ws, z_dim], each mapped to its own row of ws."""
    w = generator.style(latents.flatten(0, 1)).view(len(latents), generator.num_ws, -1)
    return generator.w_avg.lerp(w, truncation_psi)


SPACES = {
    "z": Space(  # [N, z_dim]: the paper's SCS
        start=lambda generator, z, psi: z,
        ws=lambda generator, latents, psi: generator.mapping(latents, psi),
    ),
    "z_per_layer": Space(  # [N, num_ws, z_dim]: the reference's SIE
        start=lambda generator, z, psi: z[:, None].repeat(1, generator.num_ws, 1),
        ws=_layers_to_ws,
    ),
    "w_plus": Space(  # [N, num_ws, w_dim]; truncated once, where it begins
        start=lambda generator, z, psi: generator.mapping(z, psi),
        ws=lambda generator, latents, psi: latents,
    ),
}


@dataclass(frozen=True)
class Rendered:
    """What a forward pass of a batch gives a loss; all of it is differentiable in the latents."""

    latents: Tensor  # [N, ...] as the space has them
    ws: Tensor  # [N, num_ws, w_dim]
    features: dict[str, Tensor] = field(default_factory=dict)  # {tap name: [N, C, H, W]}
    images: Tensor | None = None  # [N, 3, R, R], about [-1, 1]

    @property
    def pictures(self) -> Tensor:
        """The images of a pass that was asked for them."""
        assert self.images is not None, "a pass that ended at a tap"
        return self.images


@dataclass(frozen=True)
class Forward:
    """Latents through a frozen generator, no further than the last tap needed."""

    generator: Generator
    space: str = "z"  # a key of SPACES
    taps: tuple[Tap, ...] = ()
    images: bool = False  # also synthesize the image; else the pass ends at the last tap
    truncation_psi: float = 1.0

    def __post_init__(self) -> None:
        choose("latent space", self.space, SPACES)
        if foreign := [tap for tap in self.taps if tap not in self.generator.taps]:
            raise InputError(
                f"an extractor of tap {foreign[0].name} with {foreign[0].channels} channels",
                f"taps of the generator, {', '.join(tap.name for tap in self.generator.taps)}",
                "name an extractor of the same study",
            )

    def start(self, z: Float[Tensor, "sample z_dim"]) -> Tensor:
        """The latents that z begins as."""
        if z.shape[-1] != self.generator.z_dim:
            raise InputError(
                f"latents of width {z.shape[-1]}",
                f"width {self.generator.z_dim}",
                "name latents of this generator",
            )
        return SPACES[self.space].start(self.generator, z, self.truncation_psi).detach().clone()

    def __call__(self, latents: Tensor) -> Rendered:
        """Render a batch of latents."""
        ws = SPACES[self.space].ws(self.generator, latents, self.truncation_psi)
        if not self.images and not self.taps:
            return Rendered(latents, ws)
        last = [tap for tap in self.generator.taps if tap in self.taps][-1:]
        with record(self.generator, self.taps) as features:
            images = self.generator.synthesis(ws, stop_at=None if self.images else last[0])
        return Rendered(latents, ws, features, images)


@runtime_checkable
class Segmenter(Protocol):
    """Class logits of what was rendered, and what a forward pass must render for them."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the ids."""

    @property
    def taps(self) -> tuple[Tap, ...]:
        """Feature maps that it reads."""

    @property
    def images(self) -> bool:
        """Whether it reads the image."""

    def logits(self, rendered: Rendered, size: int) -> Float[Tensor, "sample class size size"]:
        """Differentiable logits at `size` px."""


@dataclass(frozen=True)
class ByExtractor:
    """A fitted extractor: reads feature maps alone, so the image is never synthesized."""

    extractor: Extractor
    images: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        return self.extractor.classes

    @property
    def taps(self) -> tuple[Tap, ...]:
        return self.extractor.taps

    def logits(self, rendered: Rendered, size: int) -> Float[Tensor, "sample class size size"]:
        # The window of everything: interpolation by matrices, whose backward pass is the faster.
        return self.extractor.logits(rendered.features, size, Window(0, 0, size))


@dataclass(frozen=True)
class ByExtractors:
    """Extractors of the same taps and classes, each of which sees its own equal share of a batch.

    The samples of several extractors are searched as one batch; none of them notices.
    """

    extractors: tuple[Extractor, ...]
    images: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        return self.extractors[0].classes

    @property
    def taps(self) -> tuple[Tap, ...]:
        return self.extractors[0].taps

    def logits(self, rendered: Rendered, size: int) -> Float[Tensor, "sample class size size"]:
        share = len(rendered.latents) // len(self.extractors)
        parts = {name: x.split(share) for name, x in rendered.features.items()}
        found = []
        for i, extractor in enumerate(self.extractors):
            own = {name: x[i] for name, x in parts.items()}
            found.append(extractor.logits(own, size, Window(0, 0, size)))
        return torch.cat(found)


@dataclass(frozen=True)
class ByTeacher:
    """A segmentation network in the loop: reads the synthesized image."""

    teacher: Teacher
    images: bool = True
    taps: tuple[Tap, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        return self.teacher.classes

    def logits(self, rendered: Rendered, size: int) -> Float[Tensor, "sample class size size"]:
        return self.teacher.log_probabilities(rendered.pictures, size)


@dataclass(frozen=True)
class Optimized:
    """Latents after the last step, and per sample those of the lowest loss on the way."""

    last: Tensor  # [N, ...]
    best: Tensor  # [N, ...]
    # steps + 1 rows, fewer if the search was ended: row k after k steps, the last of `last`
    losses: Float[Tensor, "step sample"]
    kept: dict[int, Tensor]  # {k: latents after k steps}, as asked for


def optimize_latents(
    forward: Callable[[Tensor], Rendered],
    latents: Tensor,  # [N, ...], where the search begins: Forward.start(z)
    loss: Callable[[Rendered], Float[Tensor, " sample"]],  # one value a sample, no means over them
    steps: int,
    learning_rate: float | Callable[[int], float],  # or the rate of each step, 0 to steps - 1
    keep: Sequence[int] = (),  # also return the latents after so many steps
    # Called with (k, what the latents after k steps give, losses [N]); True ends the search there.
    on_step: Callable[[int, Rendered, Tensor], bool | None] | None = None,
) -> Optimized:
    """Adam on the latents of a batch; each sample goes as it would go alone.

    The losses of the samples are summed and Adam works by element, so samples do not meet. The
    gradient is taken with regard to the latents only: nothing is left on a frozen weight.
    """
    rates = _rates(steps, learning_rate)
    x = latents.detach().clone().requires_grad_()
    adam = torch.optim.Adam([x])
    best, lowest = x.detach().clone(), torch.full((len(x),), torch.inf, device=x.device)
    losses, kept = [], {}
    for step in range(steps + 1):
        with torch.set_grad_enabled(step < steps):  # the last iterate is only looked at
            rendered = forward(x)
            values = loss(rendered)
        found, now = values.detach().float(), x.detach()
        better = found < lowest
        lowest = torch.where(better, found, lowest)
        best = torch.where(better.view(-1, *[1] * (x.ndim - 1)), now, best)
        losses.append(found)
        if step in keep:
            kept[step] = now.clone()
        if on_step is not None and on_step(step, rendered, found):
            break
        if step < steps:
            (x.grad,) = torch.autograd.grad(values.sum(), x)
            adam.param_groups[0]["lr"] = rates[step]
            adam.step()
    return Optimized(x.detach(), best, torch.stack(losses), kept)


def _rates(steps: int, learning_rate: float | Callable[[int], float]) -> list[float]:
    """The rate of each step; InputError unless all are finite, and positive or a schedule's 0."""
    if callable(learning_rate):
        rates, least = [float(learning_rate(step)) for step in range(max(steps, 0))], 0.0
    else:
        rates, least = [float(learning_rate)] * max(steps, 1), math.ulp(0.0)
    if steps < 0 or not all(least <= rate < math.inf for rate in rates):
        raise InputError(
            f"steps {steps} and learning_rate {learning_rate if steps < 0 else min(rates)}",
            "steps of 0 or more and a positive rate",
            "change steps or learning_rate",
        )
    return rates[:steps]
