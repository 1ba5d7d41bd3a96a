"""The Linear Semantic Extractor, eq (1) of Xu & Zheng."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.extractors.networks.base import PerTapExtractor, Window
from pipeline.generators.pointwise import pointwise
from pipeline.generators.taps import Tap


class LSE(PerTapExtractor):
    """Linear Semantic Extractor: the sum over taps of 1x1 convolutions, upsampled bilinearly."""

    def __init__(
        self,
        classes: Sequence[str],
        taps: Sequence[Tap],
        bias: bool = False,
        align_corners: bool = False,
    ):
        super().__init__(classes, taps, align_corners)
        self.weights = nn.ParameterList(
            nn.Conv2d(tap.channels, len(self.classes), 1, bias=False).weight.detach()[..., 0, 0]
            for tap in self.taps
        )
        self.bias = nn.Parameter(torch.zeros(len(self.classes))) if bias else None

    def part(self, index: int, x: Tensor) -> Tensor:
        return pointwise(x.float(), self.weights[index])

    def logits(
        self, features: Mapping[str, Tensor], size: int, window: Window | None = None
    ) -> Float[Tensor, "sample class height width"]:
        total = super().logits(features, size, window)
        return total if self.bias is None else total + self.bias.view(1, -1, 1, 1)

    def set_matrix(
        self,
        matrix: Float[Tensor, "channel class"],
        bias: Float[Tensor, " class"] | None = None,  # of an LSE that has one
    ) -> None:
        """Fill the weights from one matrix over the taps' stacked channels."""
        if bias is not None:
            assert self.bias is not None, "an LSE without a bias"
            self.bias.data = bias
        for weight, part in zip(
            self.weights, matrix.split([tap.channels for tap in self.taps]), strict=True
        ):
            weight.data = part.T.contiguous().to(weight.dtype)

    def absorb(self, scales: Sequence[Float[Tensor, " _"]]) -> None:
        for weight, scale in zip(self.weights, scales, strict=True):
            weight.data.mul_(scale)

    @property
    def settings(self) -> dict:
        return {"bias": self.bias is not None}

    def tensors(self) -> dict[str, Tensor]:
        tensors = {
            f"weights.{tap.name}": weight.detach()
            for tap, weight in zip(self.taps, self.weights, strict=True)
        }
        return tensors if self.bias is None else tensors | {"bias": self.bias.detach()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        for tap, weight in zip(self.taps, self.weights, strict=True):
            weight.data = tensors[f"weights.{tap.name}"]
        if self.bias is not None:
            self.bias.data = tensors["bias"]
