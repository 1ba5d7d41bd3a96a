"""Semantic extractors: feature maps of several taps in, a mask out (Xu & Zheng, sec. 2).

LSE is eq (1), the linear one; NSE-1 and NSE-2 are the paper's nonlinear ones. They are used alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from pipeline.generators.pointwise import pointwise, product
from pipeline.generators.taps import Tap
from pipeline.runtime.devices import fast_bfloat16
from pipeline.runtime.errors import InputError, choose
from pipeline.runtime.weights import read_safetensors, write_safetensors

Span = tuple[int, int]  # pixels [start, stop) along one axis


@dataclass(frozen=True)
class Variant:
    """What an extractor's name stands for in params.yaml."""

    kind: str = "LSE"  # a key of KINDS
    bias: bool = False  # LSE
    finest: int = 1  # LSE: taps up to the image's resolution / finest
    kernel: int = 1  # NSE1


EXTRACTORS = {
    "lse": Variant(),  # eq (1): all taps, no bias
    "lse_biased": Variant(bias=True),
    "lse_coarse": Variant(finest=8),  # on a 1024 px generator: taps up to 128 px
    "nse1": Variant("NSE1"),
    "nse1_3x3": Variant("NSE1", kernel=3),  # as figure 7 draws it; the reference has 1x1
    "nse2": Variant("NSE2"),
}


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
            return sum(_raised(logits, size, self.align_corners) for _, logits in parts)
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
    unit = torch.eye(resolution)[None]
    return F.interpolate(unit, size, mode="linear", align_corners=align_corners)[0].T.contiguous()


@lru_cache(maxsize=1024)
def interpolation_span(
    resolution: int, size: int, align_corners: bool, start: int, stop: int, margin: int = 0
) -> Span:
    """Tap pixels that label pixels [start, stop) are interpolated from, and a margin."""
    used = interpolation(resolution, size, align_corners)[start:stop].any(0).nonzero()
    return _grow((int(used[0]), int(used[-1]) + 1), margin, resolution)


def _grow(span: Span, margin: int, resolution: int) -> Span:
    return max(0, span[0] - margin), min(resolution, span[1] + margin)


class _PerTap(Extractor):
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


class LSE(_PerTap):
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

    def set_matrix(self, matrix: Float[Tensor, "channel class"]) -> None:
        """Fill the weights from one matrix over the taps' stacked channels."""
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
        found = {
            f"weights.{tap.name}": weight.detach()
            for tap, weight in zip(self.taps, self.weights, strict=True)
        }
        return found if self.bias is None else found | {"bias": self.bias.detach()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        for tap, weight in zip(self.taps, self.weights, strict=True):
            weight.data = tensors[f"weights.{tap.name}"]
        if self.bias is not None:
            self.bias.data = tensors["bias"]


class NSE1(_PerTap):
    """NSE-1: three convolutions a tap with ReLUs between, then as the LSE.

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
        for head, scale in zip(self.heads, scales, strict=True):
            head[0].weight.data.mul_(scale[:, None, None])

    @property
    def settings(self) -> dict:
        return {"kernel": self.kernel}


class NSE2(Extractor):
    """NSE-2: a chain from the coarsest tap to the finest, each adding what its tap shows.

    h_0 = E_0(x_0); h_i = ReLU(R_i(up(h_{i-1}))) + E_i(x_i); logits = O(h_last), upsampled
    bilinearly. E_i is a 3x3 convolution and a ReLU, R_i and O are 3x3 convolutions, `up` repeats
    pixels. At most `width` channels a map; None: as many as the tap has, which is the paper's.
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
        found = [_grow(needed, 1, last.resolution)]
        for before, tap in reversed(list(pairwise(self.taps))):
            factor = tap.resolution // before.resolution
            needed = found[0][0] // factor, -(-found[0][1] // factor)
            found.insert(0, _grow(needed, 1, before.resolution))
        return found

    def absorb(self, scales: Sequence[Float[Tensor, " _"]]) -> None:
        for encoder, scale in zip(self.encoders, scales, strict=True):
            encoder.weight.data.mul_(scale[:, None, None])

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
    return tuple(
        slice(t.start - factor * s.start, t.stop - factor * s.start)
        for s, t in zip(source, target, strict=True)
    )


KINDS = {"LSE": LSE, "NSE1": NSE1, "NSE2": NSE2}


def save_extractor(path: str | Path, extractor: Extractor, facts: dict) -> None:
    """Write an extractor with its classes, taps and `facts` (how it was fitted)."""
    write_safetensors(
        path,
        {name: value.detach().cpu() for name, value in extractor.tensors().items()},
        facts
        | {
            "type": type(extractor).__name__,
            "settings": extractor.settings,
            "classes": extractor.classes,
            "taps": [vars(tap) for tap in extractor.taps],
            "align_corners": extractor.align_corners,
        },
    )


def load_extractor(path: str | Path, device: str | torch.device = "cpu") -> Extractor:
    """Load what save_extractor wrote, frozen."""
    tensors, facts = read_safetensors(path)
    if facts.get("type") not in KINDS:
        raise InputError(
            f"{path} of type {facts.get('type')!r}",
            f"an extractor of type {', '.join(KINDS)}",
            "name a file of data/extractors/",
        )
    taps = [Tap(**tap) for tap in facts["taps"]]
    settings = facts.get("settings", {"bias": "bias" in tensors})  # older files: an LSE's
    extractor = KINDS[facts["type"]](
        facts["classes"], taps, **settings, align_corners=facts["align_corners"]
    )
    extractor.restore(tensors)
    return extractor.eval().requires_grad_(False).to(device)


def variant(name: str) -> Variant:
    """Look an extractor's name up; InputError lists them."""
    return EXTRACTORS[choose("extractor", name, EXTRACTORS)]


def build(
    name: str,
    classes: Sequence[str],
    taps: Sequence[Tap],
    nse2_width: int,  # channels of NSE-2 at most; 0: the paper's, as many as each tap has
    align_corners: bool,
) -> Extractor:
    """An untrained extractor called `name`, with PyTorch's default weights."""
    form = variant(name)
    setting = {"LSE": form.bias, "NSE1": form.kernel, "NSE2": nse2_width or None}[form.kind]
    return KINDS[form.kind](classes, taps, setting, align_corners)
