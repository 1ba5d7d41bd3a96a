"""The nonlinear extractors of Xu & Zheng: NSE-1 and NSE-2."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.extractors.networks.base import (
    Extractor,
    PerTapExtractor,
    Span,
    Window,
    grow,
    interpolation_span,
)
from pipeline.generators.taps import Tap
from pipeline.runtime.errors import InputError


class NSE1(PerTapExtractor):
    """NSE-1: three convolutions per tap with ReLUs between, then as the LSE.

    The hidden width is the mean of channels and classes. kernel 1 is the reference's, 3 the
    paper's figure 7.
    """

    rough = True

    def __init__(
        self,
        classes: Sequence[str],
        taps: Sequence[Tap],
        kernel: int = 1,
        align_corners: bool = False,
    ):
        super().__init__(classes, taps, align_corners)
        self.kernel, self.margin = kernel, 3 * (kernel // 2)
        self.heads = nn.ModuleList(self._head(tap.channels) for tap in self.taps)

    def _head(self, channels: int) -> nn.Sequential:
        hidden = (channels + len(self.classes)) // 2
        widths = (channels, hidden, hidden, len(self.classes))
        first, second, last = (
            nn.Conv2d(before, after, self.kernel, padding=self.kernel // 2)
            for before, after in pairwise(widths)
        )
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)

    def part(self, index: int, x: Tensor) -> Tensor:
        return self.heads[index](x)

    def absorb(self, scales: Sequence[Float[Tensor, " _"]]) -> None:
        for i, scale in zip(range(len(self.heads)), scales, strict=True):
            self.get_parameter(f"heads.{i}.0.weight").data.mul_(scale[:, None, None])

    @property
    def settings(self) -> dict:
        return {"kernel": self.kernel}


class NSE2(Extractor):
    """NSE-2: a chain from the coarsest tap to the finest, each adding what its tap shows.

    h_0 = E_0(x_0); h_i = ReLU(R_i(up(h_{i-1}))) + E_i(x_i); logits = O(h_last), upsampled
    bilinearly. E_i is a 3x3 convolution and a ReLU, R_i and O are 3x3 convolutions, `up` repeats
    pixels. At most `width` channels per map; None: as many as the tap has, which is the paper's.
    """

    rough = True

    def __init__(
        self,
        classes: Sequence[str],
        taps: Sequence[Tap],
        width: int | None = None,
        align_corners: bool = False,
    ):
        super().__init__(classes, taps, align_corners)
        for before, tap in pairwise(self.taps):
            if tap.resolution % before.resolution:
                raise InputError(
                    f"tap {tap.name} of {tap.resolution} px after {before.resolution} px",
                    "resolutions that are multiples of the one before",
                    "list the taps from the coarsest to the finest",
                )
        self.width = width
        widths = [min(tap.channels, width or tap.channels) for tap in self.taps]
        self.encoders = nn.ModuleList(
            nn.Conv2d(tap.channels, own, 3, padding=1)
            for tap, own in zip(self.taps, widths, strict=True)
        )
        self.revisers = nn.ModuleList(
            nn.Conv2d(before, own, 3, padding=1) for before, own in pairwise(widths)
        )
        self.out = nn.Conv2d(widths[-1], len(self.classes), 3, padding=1)

    def logits(
        self, features: Mapping[str, Tensor], size: int, window: Window | None = None
    ) -> Float[Tensor, "sample class height width"]:
        encoded = [
            F.relu(encoder(x))
            for encoder, x in zip(self.encoders, self._maps(features), strict=True)
        ]
        regions = None if window is None else self.regions(size, window)
        hidden = encoded[0]
        for index, reviser in enumerate(self.revisers):
            before, tap = self.taps[index : index + 2]
            raised = _repeat(hidden, tap.resolution // before.resolution)
            if regions is not None:
                raised = raised[..., *_inside(regions[before.name], before, regions[tap.name], tap)]
            hidden = F.relu(reviser(raised)) + encoded[index + 1]
        return self._resized([(self.taps[-1], self.out(hidden).float())], size, window)

    def spans(self, size: int, start: int, stop: int) -> list[Span]:
        """From the finest tap back: every 3x3 convolution reads one more pixel around."""
        last = self.taps[-1]
        needed = interpolation_span(last.resolution, size, self.align_corners, start, stop, 1)
        spans = [grow(needed, 1, last.resolution)]
        for before, tap in reversed(list(pairwise(self.taps))):
            factor = tap.resolution // before.resolution
            needed = spans[0][0] // factor, -(-spans[0][1] // factor)
            spans.insert(0, grow(needed, 1, before.resolution))
        return spans

    def absorb(self, scales: Sequence[Float[Tensor, " _"]]) -> None:
        for i, scale in zip(range(len(self.encoders)), scales, strict=True):
            self.get_parameter(f"encoders.{i}.weight").data.mul_(scale[:, None, None])

    @property
    def settings(self) -> dict:
        return {"width": self.width}


def _repeat(x: Tensor, factor: int) -> Tensor:
    return x if factor == 1 else F.interpolate(x, scale_factor=factor, mode="nearest")


def _inside(
    source: tuple[slice, slice], before: Tap, target: tuple[slice, slice], tap: Tap
) -> tuple[slice, slice]:
    """Where the region `target` of a tap lies in the repeated region `source` of the one before."""
    factor = tap.resolution // before.resolution
    starts = [factor * part.start for part in source]
    rows, columns = (
        slice(part.start - start, part.stop - start)
        for part, start in zip(target, starts, strict=True)
    )
    return rows, columns


NONLINEAR: dict[str, type[Extractor]] = {"NSE1": NSE1, "NSE2": NSE2}
