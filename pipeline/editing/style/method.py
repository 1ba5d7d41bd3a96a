"""Local transfer from a reference to a target, by style scales, by features and by pixels.

Collins et al., "Editing in Style" (CVPR 2020), sec. 3.3 and 4: the method and its baselines.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from pipeline.data.images import to_uint8
from pipeline.editing.style.contributions import (
    Row,
    query_sequential,
    query_simultaneous,
    restyled,
)
from pipeline.editing.style.options import Plan
from pipeline.editing.style.poisson import poisson_blend
from pipeline.editing.style.registry import METHODS
from pipeline.generators.contract import Generator
from pipeline.generators.taps import Style, edit, record

Picture = UInt8[np.ndarray, "3 size size"]
Region = Bool[np.ndarray, "size size"]

EPSILON_CHANNELS = 512  # epsilon counts channels of a layer as wide as this
COARSE = 8  # px: layers up to here hold pose and shape


class Transfer:
    """A target and a reference of one generator; each method gives the edited target's image."""

    def __init__(
        self,
        generator: Generator,
        own: Float[Tensor, "1 num_ws w_dim"],  # ws of the target
        other: Float[Tensor, "1 num_ws w_dim"],  # ws of the reference
        size: int,  # of the images, px
        finest: int = 64,  # taps up to this many px can be blended
        exposure: tuple[float, float] = (0.0, 1.0),  # images are (x - first) / second
    ):
        self.generator, self.size, self.exposure, self._ws = generator, size, exposure, own
        kept = [tap for tap in generator.taps if tap.resolution <= finest]
        with record(generator, (*generator.styles, *kept)) as found:
            self.other = self._render(other)
        self._styles = {style.name: found[style.name] for style in generator.styles}
        self._maps = {tap: found[tap.name] for tap in kept}
        self.own = self._render(own)

    @torch.no_grad()
    def _render(self, ws: Tensor) -> Picture:
        shift, scale = self.exposure
        return to_uint8((self.generator.synthesis(ws) - shift) / scale, self.size)[0]

    def _within(self, change: AbstractContextManager) -> Picture:
        with change:
            return self._render(self._ws)

    def restyle(self, query: Mapping[str, Row]) -> Picture:
        """Style scales moved towards the reference's by q: the paper's method (eq 3)."""
        return self._within(restyled(self.generator, self._styles, query))

    def blend_features(self, region: Region, finest: int, strength: float) -> Picture:
        """Feature maps up to `finest` px replaced by the reference's in the region."""
        mask = torch.from_numpy(region.astype(np.float32))[None, None]

        def change(other: Tensor) -> Callable[[Tensor], Tensor]:
            m = F.interpolate(mask, other.shape[-2:], mode="area").to(other) * strength
            return lambda own: own + m * (other - own)

        taps = {tap: change(x) for tap, x in self._maps.items() if tap.resolution <= finest}
        return self._within(edit(self.generator, taps))


def queries(
    method: str,  # sequential, simultaneous or global
    strength: float,  # epsilon, lambda or q
    styles: Sequence[Style],
    contributions: Mapping[str, Row],  # the edited part's row of M, of each style
    threshold: float = 0.0,  # of M, for the sequential query
    coarse_share: float = 1.0,  # epsilon of layers up to COARSE px is multiplied by this
) -> dict[str, Row]:
    """Q of every style for one strength; epsilon is scaled by a layer's channels / 512."""
    found = {}
    for style in styles:
        row = contributions[style.name]
        if method == "sequential":
            share = coarse_share if style.resolution <= COARSE else 1.0
            epsilon = strength * share * style.channels / EPSILON_CHANNELS
            found[style.name] = query_sequential(row, epsilon, threshold)
        elif method == "simultaneous":
            found[style.name] = query_simultaneous(row, strength)
        else:
            found[style.name] = np.full_like(row, strength)
    return found


def edit_pair(
    transfer: Transfer,
    region: Region,
    method: str,
    strength: float,
    contributions: Mapping[str, Row],  # the part's row of M, of each style
    plan: Plan,
) -> Picture:
    """The target's image after one edit."""
    form = METHODS[method]
    if form.query:
        styles = transfer.generator.styles
        asked = (contributions, plan.contribution_threshold, plan.coarse_share)
        return transfer.restyle(queries(form.query, strength, styles, *asked))
    if form.finest:
        return transfer.blend_features(region, form.finest, strength)
    blended = poisson_blend(transfer.own, transfer.other, region).astype(float)
    return (transfer.own + strength * (blended - transfer.own)).round().astype(np.uint8)
