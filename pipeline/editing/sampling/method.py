"""Semantic-Conditional Sampling (Xu & Zheng, CVPR 2021, section 4.2 and appendix H): images whose
semantics are a target mask, found by moving z until a segmenter sees the target.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.editing.optimize import Forward, Optimized, Rendered, Segmenter, optimize_latents
from pipeline.editing.sampling.options import Search
from pipeline.generators.contract import Generator
from pipeline.runtime.errors import InputError

PENALTY = 1e-3  # of |z - z_0|^2 and of |z|^2, as in the reference

Targets = UInt8[np.ndarray, "sample size size"]


def draw_candidates(
    keys: Sequence[tuple[int, int]],  # (target, sample): each draws from a stream of its own
    search: Search,
    z_dim: int,
) -> Float[np.ndarray, "sample candidate z_dim"]:
    """The z that each search may begin at; the same for every segmenter, so methods are paired."""
    return np.stack(
        [
            np.random.default_rng([search.seed, *key]).standard_normal(
                (search.candidates, z_dim), np.float32
            )
            for key in keys
        ]
    )


@torch.no_grad()
def pick(
    forward: Forward,
    segmenter: Segmenter,
    targets: Targets,
    candidates: Float[np.ndarray, "distinct candidate z_dim"],
) -> Float[Tensor, "sample z_dim"]:
    """Of each row of candidates the z whose mask agrees with the target in the most pixels.

    The paper prints argmin; the most is what it means, and what the reference does. Targets may be
    several times as many: then the rows of candidates, which are rendered once, begin again.
    """
    device = forward.generator.device
    wanted = torch.from_numpy(targets).to(device)
    matching, times = [], len(targets) // len(candidates)
    for column in torch.from_numpy(candidates).to(device).unbind(1):
        rendered = _repeated(forward(forward.start(column)), times)
        masks = segmenter.logits(rendered, targets.shape[-1]).argmax(1)
        matching.append((masks == wanted).sum((1, 2)))
    chosen = torch.stack(matching, 1).argmax(1).cpu()
    rows = torch.arange(len(chosen)) % len(candidates)
    return torch.from_numpy(candidates)[rows, chosen].to(device)


def _repeated(rendered: Rendered, times: int) -> Rendered:
    """The batch, so many times over."""
    if times == 1:
        return rendered
    latents, ws = (torch.cat([x] * times) for x in (rendered.latents, rendered.ws))
    features = {name: torch.cat([x] * times) for name, x in rendered.features.items()}
    return Rendered(latents, ws, features, rendered.images)


def sample_conditionally(
    generator: Generator,
    segmenter: Segmenter,
    targets: Targets,
    keys: Sequence[tuple[int, int]],  # (target, sample) of each row, which seeds its candidates
    search: Search,  # fewer keys than targets: they begin again for the next of `ByExtractors`
    keep: Sequence[int] = (),  # also return z after so many steps
) -> tuple[Float[Tensor, "sample z_dim"], Optimized]:
    """z_0, the best candidate of each row, and what the search made of it, as one batch."""
    forward = Forward(
        generator, "z", tuple(segmenter.taps), segmenter.images, search.truncation_psi
    )
    if targets.max(initial=0) >= len(segmenter.classes):
        raise InputError(
            f"a target with class id {targets.max()}",
            f"ids below {len(segmenter.classes)}",
            "draw the target in the segmenter's label space",
        )
    candidates = draw_candidates(keys, search, generator.z_dim)
    z_0 = pick(forward, segmenter, targets, candidates)
    wanted = torch.from_numpy(targets).long().to(z_0.device)

    def loss(rendered: Rendered) -> Float[Tensor, " sample"]:
        logits, z = segmenter.logits(rendered, targets.shape[-1]), rendered.latents
        entropy = F.cross_entropy(logits, wanted, reduction="none").mean((1, 2))
        return entropy + PENALTY * ((z - z_0).square().sum(1) + z.square().sum(1))

    found = optimize_latents(
        forward, forward.start(z_0), loss, search.steps, search.learning_rate, keep
    )
    return z_0, found
