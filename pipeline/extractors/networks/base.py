"""What all extractors share: the contract, windows, and bilinear interpolation of logits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from pipeline.generators.pointwise import product
from pipeline.generators.taps import Tap
from pipeline.runtime.devices import fast_bfloat16
from pipeline.runtime.errors import InputError

Span = tuple[int, int]  # pixels [start, stop) along one axis


@dataclass(frozen=True)
class Window:
    """A square of label pixels, [top, top + side) x [left, left + side)."""

    top: int
    left: int
    side: int


class Extractor(nn.Module):
    """What all extractors share: classes, taps, logits of a whole mask or of a window, masks.

    Training looks at windows of the mask. `regions` says which part of each tap a window's logits
    depend on; from these parts, `logits` gives exactly what it gives there for the whole maps.
    """

    rough = False  # whether `predict` may compute in bfloat16 where that is fast

    def __init__(self, classes: Sequence[str], taps: Sequence[Tap], align_corners: bool):
        super().__init__()
        self.classes, self.taps, self.align_corners = tuple(classes), tuple(taps), align_corners

    def logits(
        self, features: Mapping[str, Tensor], size: int, window: Window | None = None
    ) -> Float[Tensor, "sample class height width"]:
        """Logits from {tap name: [N, C, H, W]}, or of a window from the `regions` of the maps."""
        raise NotImplementedError

    def spans(self, size: int, start: int, stop: int) -> list[Span]:
        """Per tap, the pixels along one axis that label pixels [start, stop) depend on."""
        raise NotImplementedError

    def absorb(self, scales: Sequence[Float[Tensor, " _"]]) -> None:
        """Fold a factor per tap and channel of the inputs into the first weights."""
        raise NotImplementedError

    @property
    def settings(self) -> dict:
        """The constructor's arguments besides classes, taps and align_corners."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """All weights by name, as a file holds them."""
        return self.state_dict()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Set what `tensors` gave."""
        self.load_state_dict(tensors)

    def regions(self, size: int, window: Window) -> dict[str, tuple[slice, slice]]:
        """Rows and columns of each tap that the window's logits depend on."""
        rows = self.spans(size, window.top, window.top + window.side)
        columns = self.spans(size, window.left, window.left + window.side)
        return {
            tap.name: (slice(*row), slice(*column))
            for tap, row, column in zip(self.taps, rows, columns, strict=True)
        }

    @torch.inference_mode()
    def predict(
        self, features: Mapping[str, Tensor], size: int
    ) -> UInt8[np.ndarray, "sample size size"]:
        """Masks of class ids [N, size, size]."""
        device = next(self.parameters()).device.type
        with torch.autocast(device, torch.bfloat16, self.rough and fast_bfloat16(device)):
            logits = self.logits(features, size)
        return logits.argmax(1).to(torch.uint8).cpu().numpy()

    def _maps(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """The taps' maps in order; InputError names the first one missing."""
        if missing := [tap.name for tap in self.taps if tap.name not in features]:
            raise InputError(
                f"features without tap {missing[0]}",
                f"taps {', '.join(tap.name for tap in self.taps)}",
                "record the extractor's own taps",
            )
        return [features[tap.name] for tap in self.taps]

    def _resized(
        self, parts: Sequence[tuple[Tap, Tensor]], size: int, window: Window | None
    ) -> Float[Tensor, "sample class height width"]:
        """The sum of several taps' logits, each raised bilinearly to label pixels.

        Of a window, from the regions of the maps: bilinear is rows @ map @ columns.T, and the sum
        over taps is one product of all their columns side by side. Its backward pass is as quick.
        """
        if window is None:
            whole = sum(_raised(logits, size, self.align_corners) for _, logits in parts)
            assert isinstance(whole, Tensor), "an extractor without taps"
            return whole
        regions = self.regions(size, window)
        raised, across = [], []
        for tap, logits in parts:
            rows, columns = regions[tap.name]
            matrix = interpolation(tap.resolution, size, self.align_corners).to(logits.device)
            raised.append(matrix[window.top : window.top + window.side, rows] @ logits)
            across.append(matrix[window.left : window.left + window.side, columns])
        wide = torch.cat(raised, -1)  # [N, class, window row, column of any tap]
        return product(wide.flatten(0, 2), torch.cat(across, 1)).view(*wide.shape[:3], -1)


def _raised(logits: Tensor, size: int, align_corners: bool) -> Tensor:
    if logits.shape[-1] == size:
        return logits
    return F.interpolate(logits, (size, size), mode="bilinear", align_corners=align_corners)


@lru_cache(maxsize=32)
def interpolation(
    resolution: int, size: int, align_corners: bool
) -> Float[Tensor, "label_pixel tap_pixel"]:
    """Linear interpolation along one axis as a matrix; bilinear is rows @ map @ columns.T."""
    with torch.inference_mode(False):  # it is kept, and later passes may need gradients through it
        unit = torch.eye(resolution)[None]
        wide = F.interpolate(unit, size, mode="linear", align_corners=align_corners)
        return wide[0].T.contiguous()


@lru_cache(maxsize=1024)
def interpolation_span(
    resolution: int, size: int, align_corners: bool, start: int, stop: int, margin: int = 0
) -> Span:
    """Tap pixels that label pixels [start, stop) are interpolated from, and a margin."""
    used = interpolation(resolution, size, align_corners)[start:stop].any(0).nonzero()
    return grow((int(used[0]), int(used[-1]) + 1), margin, resolution)


def grow(span: Span, margin: int, resolution: int) -> Span:
    return max(0, span[0] - margin), min(resolution, span[1] + margin)


class PerTapExtractor(Extractor):
    """A map from each tap to logits; these are upsampled bilinearly and added.

    Logits of equal resolution are added before they are upsampled, which commutes.
    """

    margin = 0  # px of a tap around a pixel that its logits depend on

    def part(self, index: int, x: Tensor) -> Tensor:
        """Logits [N, K, H, W] of the tap of this index."""
        raise NotImplementedError

    def logits(
        self, features: Mapping[str, Tensor], size: int, window: Window | None = None
    ) -> Float[Tensor, "sample class height width"]:
        by_resolution: dict[int, tuple[Tap, Tensor]] = {}
        for index, (tap, x) in enumerate(zip(self.taps, self._maps(features), strict=True)):
            part = self.part(index, x).float()
            if tap.resolution in by_resolution:
                part = by_resolution[tap.resolution][1] + part
            by_resolution[tap.resolution] = tap, part
        return self._resized(list(by_resolution.values()), size, window)

    def spans(self, size: int, start: int, stop: int) -> list[Span]:
        return [
            interpolation_span(tap.resolution, size, self.align_corners, start, stop, self.margin)
            for tap in self.taps
        ]
