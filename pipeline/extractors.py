"""Semantic extractors: feature maps of several taps in, a mask out. LSE is eq (1) of Xu & Zheng."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from pipeline.checkpoints import read_safetensors, write_safetensors
from pipeline.errors import InputError, choose
from pipeline.taps import Tap


@dataclass(frozen=True)
class Variant:
    """What an extractor's name stands for in params.yaml."""

    bias: bool = False
    finest: int = 1  # taps up to the image's resolution / finest


EXTRACTORS = {
    "lse": Variant(),  # eq (1): all taps, no bias
    "lse_biased": Variant(bias=True),
    "lse_coarse": Variant(finest=8),  # on a 1024 px generator: taps up to 128 px
}


class LSE(nn.Module):
    """Linear Semantic Extractor: the sum over taps of 1x1 convolutions, upsampled bilinearly."""

    def __init__(
        self,
        classes: Sequence[str],
        taps: Sequence[Tap],
        bias: bool = False,
        align_corners: bool = False,
    ):
        super().__init__()
        self.classes, self.taps, self.align_corners = tuple(classes), tuple(taps), align_corners
        self.weights = nn.ParameterList(
            nn.Conv2d(tap.channels, len(self.classes), 1, bias=False).weight.detach()[..., 0, 0]
            for tap in self.taps
        )
        self.bias = nn.Parameter(torch.zeros(len(self.classes))) if bias else None

    def logits(
        self, features: Mapping[str, Tensor], size: int
    ) -> Float[Tensor, "sample class size size"]:
        """Logits from {tap name: [N, C, H, W]}.

        Each tap is projected first and logits of equal resolution are added before upsampling:
        for linear maps both commute with the interpolation.
        """
        if missing := [tap.name for tap in self.taps if tap.name not in features]:
            raise InputError(
                f"features without tap {missing[0]}",
                f"taps {', '.join(tap.name for tap in self.taps)}",
                "record the extractor's own taps",
            )
        by_resolution: dict[tuple[int, int], Tensor] = {}
        for tap, weight in zip(self.taps, self.weights, strict=True):
            x = features[tap.name]
            part = F.conv2d(x.float(), weight[..., None, None])
            key = tuple(x.shape[-2:])
            by_resolution[key] = by_resolution[key] + part if key in by_resolution else part
        total = sum(self._resize(part, size) for part in by_resolution.values())
        return total if self.bias is None else total + self.bias.view(1, -1, 1, 1)

    def _resize(self, logits: Tensor, size: int) -> Tensor:
        if logits.shape[-1] == size:
            return logits
        return F.interpolate(
            logits, (size, size), mode="bilinear", align_corners=self.align_corners
        )

    @torch.inference_mode()
    def predict(
        self, features: Mapping[str, Tensor], size: int
    ) -> UInt8[np.ndarray, "sample size size"]:
        """Masks of class ids [N, size, size]."""
        return self.logits(features, size).argmax(1).to(torch.uint8).cpu().numpy()

    def set_matrix(self, matrix: Float[Tensor, "channel class"]) -> None:
        """Fill the weights from one matrix over the taps' stacked channels."""
        for weight, part in zip(
            self.weights, matrix.split([tap.channels for tap in self.taps]), strict=True
        ):
            weight.data = part.T.contiguous().to(weight.dtype)


def save_extractor(path: str | Path, extractor: LSE, facts: dict) -> None:
    """Write an LSE with its classes, taps and `facts` (how it was fitted)."""
    tensors = {
        f"weights.{tap.name}": weight.detach().cpu()
        for tap, weight in zip(extractor.taps, extractor.weights, strict=True)
    }
    if extractor.bias is not None:
        tensors["bias"] = extractor.bias.detach().cpu()
    write_safetensors(
        path,
        tensors,
        facts
        | {
            "type": "LSE",
            "classes": extractor.classes,
            "taps": [vars(tap) for tap in extractor.taps],
            "align_corners": extractor.align_corners,
        },
    )


def load_extractor(path: str | Path, device: str | torch.device = "cpu") -> LSE:
    """Load what save_extractor wrote, frozen."""
    tensors, facts = read_safetensors(path)
    if facts.get("type") != "LSE":
        raise InputError(
            f"{path} of type {facts.get('type')!r}", "an LSE", "name a file of data/extractors/"
        )
    taps = [Tap(**tap) for tap in facts["taps"]]
    extractor = LSE(facts["classes"], taps, "bias" in tensors, facts["align_corners"])
    for tap, weight in zip(taps, extractor.weights, strict=True):
        weight.data = tensors[f"weights.{tap.name}"]
    if extractor.bias is not None:
        extractor.bias.data = tensors["bias"]
    return extractor.eval().requires_grad_(False).to(device)


def variant(name: str) -> Variant:
    """Look an extractor's name up; InputError lists them."""
    return EXTRACTORS[choose("extractor", name, EXTRACTORS)]
