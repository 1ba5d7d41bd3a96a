"""The contract of every generator family: mapping, synthesis, taps, styles."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import overload

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.generators.taps import Style, Tap, find
from pipeline.runtime.errors import InputError, choose

NOISE_MODES = ("const", "random", "none")


class Generator(nn.Module, ABC):
    """A frozen image generator read through named taps.

    Attributes: family, z_dim, w_dim, num_ws, resolution (px), taps and styles in forward order.
    """

    family: str
    z_dim: int
    w_dim: int
    num_ws: int
    resolution: int
    taps: tuple[Tap, ...]
    styles: tuple[Style, ...] = ()  # none: a family that has no scales to edit
    const: Tensor  # [1, channels, 4, 4], of a family that has a style of no tap
    w_avg: Tensor

    def mapping(
        self,
        z: Float[Tensor, "sample z_dim"],
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,  # layers to truncate; None = all
    ) -> Float[Tensor, "sample num_ws w_dim"]:
        """z to ws, one row per modulated layer: w_avg + psi (w - w_avg) on the first layers."""
        if z.shape[-1] != self.z_dim:
            raise InputError(
                f"z of width {z.shape[-1]}", f"width {self.z_dim}", "sample z for this generator"
            )
        ws = self.style(z)[:, None].repeat(1, self.num_ws, 1)
        ws[:, :truncation_cutoff] = self.w_avg.lerp(ws[:, :truncation_cutoff], truncation_psi)
        return ws

    @overload
    def synthesis(self, ws: Tensor, stop_at: None = None, noise_mode: str = "const") -> Tensor: ...

    @overload
    def synthesis(
        self, ws: Tensor, stop_at: Tap | str | None, noise_mode: str = "const"
    ) -> Tensor | None: ...

    def synthesis(
        self,
        ws: Float[Tensor, "sample num_ws w_dim"],
        stop_at: Tap | str | None = None,  # end after this tap; no image is made
        noise_mode: str = "const",  # the checkpoint's noise; random (torch's generator); none
    ) -> Float[Tensor, "sample 3 height width"] | None:
        """Images [N, 3, R, R] float32, about [-1, 1]; None if the pass stopped at a tap."""
        if ws.shape[1:] != (self.num_ws, self.w_dim):
            raise InputError(
                f"ws {tuple(ws.shape)}",
                f"[N, {self.num_ws}, {self.w_dim}]",
                "make ws by this generator's mapping",
            )
        choose("noise_mode", noise_mode, NOISE_MODES)
        if stop_at is not None:
            stop_at = find(self.taps, stop_at if isinstance(stop_at, str) else stop_at.name).name
        images = self.draw(ws.to(self.dtype), stop_at, noise_mode)
        return None if images is None else images.float().contiguous()

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that synthesis computes in."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.w_avg.device

    def scaled_map(
        self,
        style: Style,
        features: Mapping[str, Tensor],  # of the styles' taps, as a pass recorded them
        scales: Mapping[str, Tensor],  # of all styles, of the same pass
    ) -> Float[Tensor, "sample channel height width"]:
        """The map that a style scales: the input of its modulated convolution."""
        if style.tap is None:
            return self.const.expand(len(scales[style.name]), -1, -1, -1)
        return features[style.tap.name]

    @property
    @abstractmethod
    def style_weights(self) -> dict[str, Float[Tensor, "row w_dim"]]:
        """{layer: float32 matrix that it multiplies its row of ws by}, in forward order.

        What SeFa factorizes: the style affine of every modulated convolution but those to RGB, or
        the first layer where w = z. Layer ranges count along this dict.
        """

    @property
    def style_rows(self) -> dict[str, int]:
        """{layer of style_weights: the row of ws that it reads}; the i-th reads row i."""
        return {layer: row for row, layer in enumerate(self.style_weights)}

    @abstractmethod
    def style(self, z: Tensor) -> Tensor:
        """z [N, z_dim] to w [N, w_dim], untruncated."""

    @abstractmethod
    def draw(self, ws: Tensor, stop: str | None, noise_mode: str) -> Tensor | None:
        """ws to images, ending after the tap called `stop`."""
