"""What an LSE is fitted to: scaled, weighted hypercolumns, their products and second moments."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.runtime.devices import fast_bfloat16
from pipeline.runtime.errors import InputError

GRAM_ROWS = 8_192
STORED = torch.bfloat16  # what hypercolumns are kept in for a fit
ROWS = 16_384  # of the matrix at a time, where it is scaled or summed
CACHED_ROWS = 128  # of it at a time, where it is converted for a product: 3 MB at most


@dataclass(frozen=True)
class Layered:
    """Rows of eq (8) of Xu & Zheng: x [M, C], then x with all taps but one at 0, for each tap.

    Never written out: a product costs what one with x does.
    """

    x: Tensor  # [M, C]
    channels: tuple[int, ...]  # of each tap

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and channels."""
        return len(self.x) * (1 + len(self.channels)), self.x.shape[1]

    @property
    def device(self) -> torch.device:
        """Where x is."""
        return self.x.device

    def __len__(self) -> int:
        return self.shape[0]

    def times(self, matrix: Tensor) -> Tensor:
        """The product [(1 + taps) M, K] with matrix [C, K] in float32."""
        pairs = zip(self.x.split(self.channels, 1), matrix.split(self.channels), strict=True)
        parts = [times(x, part) for x, part in pairs]
        whole = sum(parts)
        assert isinstance(whole, Tensor), "rows of no tap"
        return torch.cat([whole, *parts])

    def transposed_times(self, values: Tensor) -> Tensor:
        """The product [C, K] of the transposed rows with values [(1 + taps) M, K] in float32."""
        whole, *own = values.split(len(self.x))
        pairs = zip(self.x.split(self.channels, 1), own, strict=True)
        return torch.cat([transposed_times(x, whole + part) for x, part in pairs])


@dataclass(frozen=True)
class Problem:
    """Scaled features, classes and weights of sampled pixels.

    The scale divides by each channel's root mean square and is folded into the solution; nothing
    is centered, so that a class remains a cone: scaling a pixel's vector keeps its label.
    """

    x: Tensor | Layered  # [M, C] bfloat16 or float32
    y: Tensor  # [M] int64
    weights: Tensor  # [M] float32, sum 1
    scale: Tensor  # [C] float32
    num_classes: int
    bias: bool

    @property
    def columns(self) -> Tensor:
        """x [M, C] of a problem without layered rows."""
        assert isinstance(self.x, Tensor), "layered rows are never written out"
        return self.x


def problem(
    columns: Tensor,
    y: Tensor,
    weights: Tensor,
    num_classes: int,
    bias: bool,
    power: float = 1.0,  # divide each channel by its root mean square ** power
) -> Problem:
    """Set a fit up from hypercolumns [M, C]; `columns` is scaled in place.

    Below 1, `power` leaves strong channels strong. The channels' mean power is 1 in any case, so
    that an L2 strength means the same.
    """
    if len(columns) == 0:
        raise InputError("no pixels to fit on", "at least one", "sample a training split")
    weights = (weights / weights.sum()).float()
    square = torch.zeros(columns.shape[1], device=columns.device)
    for x, w in zip(columns.split(ROWS), weights.split(ROWS), strict=True):
        square += w @ x.float().square()
    scale = square.sqrt().clamp_min(1e-12)
    if power != 1.0:
        scale, root = scale**power, scale
        scale *= (root / scale).square().mean().sqrt()
    inverse = 1 / scale
    for x in columns.split(ROWS):
        x.copy_(x.float() * inverse)
    return Problem(columns, y.long(), weights, scale, num_classes, bias)


def layered(data: Problem, channels: tuple[int, ...], layer_weight: float) -> Problem:
    """Eq (8): the loss of the sum over taps, plus `layer_weight` times that of each tap alone."""
    num = len(channels)
    weights = torch.cat([data.weights, *[layer_weight * data.weights] * num])
    rows = Layered(data.columns, channels)
    y = data.y.repeat(1 + num)
    return Problem(rows, y, weights, data.scale, data.num_classes, bias=False)


def times(x: Tensor | Layered, matrix: Tensor) -> Tensor:
    """x [M, C] @ matrix [C, K] in float32."""
    if isinstance(x, Layered):
        return x.times(matrix)
    if x.dtype == torch.float32:
        return x @ matrix
    if fast_bfloat16(x.device.type):
        return (x @ matrix.to(x.dtype)).float()
    product = torch.empty(len(x), matrix.shape[1], device=x.device)
    for start, part in _converted(x):
        torch.mm(part, matrix, out=product[start : start + len(part)])
    return product


def transposed_times(x: Tensor | Layered, values: Tensor) -> Tensor:
    """x.T [C, M] @ values [M, K] in float32, summed block by block."""
    if isinstance(x, Layered):
        return x.transposed_times(values)
    total = torch.zeros(values.shape[1], x.shape[1], device=x.device)  # the quicker way round
    if x.dtype == torch.float32 or fast_bfloat16(x.device.type):
        for part, value in zip(x.split(ROWS), values.split(ROWS), strict=True):
            total += value.to(x.dtype).T @ part
    else:
        for start, part in _converted(x):
            total.addmm_(values[start : start + len(part)].T, part)
    return total.T


def _converted(x: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(first row, rows in float32) of all of x, in one buffer that stays in a CPU's cache.

    This costs a sixth of a product; products in bfloat16 without units for it take five times as
    long, and all of x in float32 twice the memory.
    """
    buffer = torch.empty(min(CACHED_ROWS, len(x)), x.shape[1], device=x.device)
    for start in range(0, len(x), CACHED_ROWS):
        rows = x[start : start + CACHED_ROWS]
        yield start, buffer[: len(rows)].copy_(rows)


def moments(data: Problem, seed: int) -> Tensor:
    """Second moments [C, C] of the features, on some rows."""
    rng = torch.Generator(data.weights.device).manual_seed(seed)
    count = min(GRAM_ROWS, len(data.x))
    rows = torch.multinomial(data.weights, count, replacement=True, generator=rng)
    gram = torch.zeros(data.x.shape[1], data.x.shape[1], device=data.x.device)
    for part in rows.split(2048):  # in float32: bfloat16 noise would drown the small eigenvalues
        x = data.columns[part].float()
        gram.addmm_(x.T, x, alpha=1 / count)
    return gram
