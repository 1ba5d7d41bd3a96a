"""Semantic image editing: latents move until the generator shows a mask (Xu & Zheng, appendix G).

The paper's two sentences on the total losses are swapped there. Here, an edit by mask minimizes
L_s + L_n + L_z, and the baseline, an edit by color strokes, L_c + L_p + L_n + L_z.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from pipeline.data.images import to_float
from pipeline.editing.optimize import SPACES, Forward, Rendered, Segmenter, optimize_latents
from pipeline.editing.semantic.options import Rule
from pipeline.extractors.networks import LSE
from pipeline.generators.registry import Generator
from pipeline.generators.taps import Tap, select


@dataclass(frozen=True)
class Objective:
    """What an edited sample should show, and what must be rendered to see it."""

    value: Callable[[Rendered], Float[Tensor, " sample"]]  # less is closer
    taps: tuple[Tap, ...] = ()
    images: bool = False


@dataclass(frozen=True)
class Edited:
    """A sample's ws before and after an edit."""

    before: Float[Tensor, "num_ws w_dim"]
    after: Float[Tensor, "num_ws w_dim"]
    losses: Float[Tensor, " step"]
    seconds: float  # on the clock
    cpu_seconds: float

    @property
    def vector(self) -> Float[Tensor, "num_ws w_dim"]:
        """What to add to another sample's ws for the same edit (Ling et al. 2021, EditGAN)."""
        return self.after - self.before


def edit_latents(
    generator: Generator, z: Float[Tensor, "sample z_dim"], objective: Objective, rule: Rule
) -> list[Edited]:
    """Move the samples' latents by the rule, each as it would go alone; the last step counts.

    The time of a batch is shared out evenly.
    """
    forward = Forward(generator, rule.space, objective.taps, objective.images, rule.truncation_psi)
    start = forward.start(z)
    clocks = time.perf_counter, time.process_time
    began = [clock() for clock in clocks]
    prior = 0.0 if rule.space == "w_plus" else rule.prior

    def loss(rendered: Rendered) -> Float[Tensor, " sample"]:
        held = rule.near * squared_norm(rendered.latents - start)
        return objective.value(rendered) + held + prior * squared_norm(rendered.latents)

    found = optimize_latents(forward, start, loss, rule.steps, rule.learning_rate)
    spent = [(clock() - before) / len(z) for clock, before in zip(clocks, began, strict=True)]
    with torch.inference_mode():
        to_ws = SPACES[rule.space].ws
        before, after = (to_ws(generator, x, rule.truncation_psi) for x in (start, found.last))
    pairs = zip(before.clone(), after.clone(), found.losses.T, strict=True)
    return [Edited(*one, *spent) for one in pairs]


def by_mask(segmenter: Segmenter, masks: UInt8[np.ndarray, "sample size size"]) -> Objective:
    """L_s: the cross-entropy of each segmented sample and its target, over all pixels."""
    targets = torch.from_numpy(masks.astype(np.int64))

    def value(rendered: Rendered) -> Float[Tensor, " sample"]:
        return cross_entropy(segmenter.logits(rendered, masks.shape[-1]), targets)

    return Objective(value, segmenter.taps, segmenter.images)


def by_color(
    strokes: UInt8[np.ndarray, "sample 3 size size"],
    originals: UInt8[np.ndarray, "sample 3 size size"],
    regions: Bool[np.ndarray, "sample size size"],
) -> Objective:
    """L_c + L_p: strokes inside each region, the sample's own image outside it.

    Images are compared at the size of the masks, area-averaged, in [-1, 1]; the strokes' colors
    are not rounded to the integers that the reference truncates them to before scaling.
    """
    wanted, kept = to_float(strokes), to_float(originals)
    inside = torch.from_numpy(regions).float()

    def value(rendered: Rendered) -> Float[Tensor, " sample"]:
        images = F.interpolate(rendered.pictures.float(), regions.shape[1:], mode="area")
        return masked_mse(images, wanted, inside) + masked_mse(images, kept, 1 - inside)

    return Objective(value, images=True)


def cross_entropy(
    logits: Float[Tensor, "sample class height width"], target: Tensor
) -> Float[Tensor, " sample"]:
    """Mean over pixels of the cross-entropy, one value a sample."""
    losses = F.cross_entropy(logits, target.to(logits.device), reduction="none")
    return losses.mean((1, 2))


def masked_mse(
    images: Float[Tensor, "sample 3 height width"],
    wanted: Float[Tensor, "sample 3 height width"],
    weight: Float[Tensor, "sample height width"],
) -> Float[Tensor, " sample"]:
    """|M (a - b)|^2 / |M|^2: squared distance in RGB, averaged over the pixels of a mask."""
    weight = weight.to(images.device)
    squares = (images - wanted.to(images.device)).square().sum(1) * weight
    return squares.sum((1, 2)) / weight.sum((1, 2)).clamp_min(1)


def squared_norm(x: Float[Tensor, "sample ..."]) -> Float[Tensor, " sample"]:
    """The sum of squares of each sample: L_n of a difference, L_z of latents."""
    return x.square().flatten(1).sum(1)


def within(extractor: LSE, max_tap_resolution: int | None) -> LSE:
    """The part of an LSE that reads taps up to so many px; None: all of it.

    Its logits are those of the LSE without the finer taps' terms, and a pass ends much earlier.
    """
    taps = select(extractor.taps, max_tap_resolution)
    part = LSE(extractor.classes, taps, extractor.bias is not None, extractor.align_corners)
    tensors = extractor.tensors()
    part.restore({name: tensors[name] for name in part.tensors()})
    return part.requires_grad_(False).to(extractor.weights[0].device)
