"""Several extractors as one: the mask of their mean, and how far they disagree on each pixel.

Zhang et al., DatasetGAN (CVPR 2021), section 3.2: the uncertainty of a label is the Jensen-Shannon
divergence of the committee's distributions over classes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.extractors.networks import LSE, Extractor, load_extractor
from pipeline.extractors.prediction import stack
from pipeline.generators.taps import Tap
from pipeline.runtime.devices import fast_bfloat16
from pipeline.runtime.errors import InputError


@dataclass(frozen=True)
class Labels:
    """Masks of class ids at the images' size; disagreement at the size that extractors read at."""

    masks: UInt8[Tensor, "sample size size"]
    disagreement: Float[Tensor, "sample label label"] | None  # 0 to 1; None of a single extractor


class Committee:
    """Fitted extractors of the same classes, which read the maps of one generator."""

    def __init__(self, members: Sequence[Extractor]):
        self.members, self.classes = tuple(members), members[0].classes
        plain = [one for one in members if isinstance(one, LSE) and one.bias is None]
        alike = len({(one.taps, one.align_corners) for one in members}) == 1
        # LSEs of the same taps are one LSE of all their classes: each map is read once.
        self._stacked = stack(plain) if alike and len(plain) == len(members) else None

    def taps_of(self, known: Sequence[Tap]) -> list[Tap]:
        """The taps that any member reads, in the order of the generator's."""
        read = {tap for member in self.members for tap in member.taps}
        return [tap for tap in known if tap in read]

    @torch.inference_mode()
    def label(self, features: Mapping[str, Tensor], label_size: int, size: int) -> Labels:
        """Masks at `size` px from scores that are read at `label_size` px and interpolated.

        Scores are a single extractor's logits, or the mean of a committee's probabilities.
        """
        logits = self._logits(features, label_size)
        if len(self.members) == 1:
            return Labels(_largest(logits[:, 0], size), None)
        probabilities = logits.softmax(2)
        disagreement = jensen_shannon(probabilities) / math.log(len(self.members))
        return Labels(_largest(probabilities.mean(1), size), disagreement.clamp(0, 1))

    def _logits(
        self, features: Mapping[str, Tensor], size: int
    ) -> Float[Tensor, "sample member class label label"]:
        if self._stacked is None:
            return torch.stack([_logits(one, features, size) for one in self.members], 1)
        return _logits(self._stacked, features, size).unflatten(1, (len(self.members), -1))


def _logits(extractor: Extractor, features: Mapping[str, Tensor], size: int) -> Tensor:
    """An extractor's logits, computed as its `predict` does."""
    device = next(extractor.parameters()).device.type
    with torch.autocast(device, torch.bfloat16, extractor.rough and fast_bfloat16(device)):
        return extractor.logits(features, size).float()


def jensen_shannon(
    probabilities: Float[Tensor, "sample member class height width"],
) -> Float[Tensor, "sample height width"]:
    """Entropy of the members' mean minus the mean of their entropies, in nats.

    0 where they agree, and the log of their number where each is sure of another class.
    """
    of_mean = torch.special.entr(probabilities.mean(1)).sum(1)
    return of_mean - torch.special.entr(probabilities).sum(2).mean(1)


def _largest(scores: Tensor, size: int) -> UInt8[Tensor, "sample size size"]:
    if scores.shape[-1] != size:
        scores = F.interpolate(scores, (size, size), mode="bilinear", align_corners=False)
    return scores.argmax(1).to(torch.uint8)


def load_committee(paths: Sequence[str], device: str = "cpu") -> Committee:
    """A committee of fitted extractors; InputError if two have other classes."""
    members = [load_extractor(path, device) for path in paths]
    for path, one in zip(paths, members, strict=True):
        if one.classes != members[0].classes:
            raise InputError(
                f"{path} with classes {', '.join(one.classes)}",
                f"those of {paths[0]}: {', '.join(members[0].classes)}",
                "name extractors of one label space",
            )
    return Committee(members)
