"""What a Hugging Face model's image processor does to an image, in torch, so that gradients pass.

The processor itself is read by transformers, which knows each class's defaults and old forms of the
configuration. Resizing repeats PIL's arithmetic: two passes, each rounded to levels of 8 bits.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from pipeline.runtime.errors import InputError

BITS = 22  # of PIL's fixed-point weights
# PIL's filters by their numbers: name, and radius in pixels of the smaller image.
RADII = {1: 3.0, 2: 1.0, 3: 2.0, 4: 0.5, 5: 1.0}
NEAREST = 0
MAX_SIDE = 8192  # px that an image is enlarged to


@dataclass(frozen=True)
class Preprocessing:
    """A processor's steps, in their order: resize, rescale, normalize, flip the channels."""

    size: dict[str, int]  # height and width, or shortest_edge, longest_edge; {}: as it comes
    divisor: int  # sides are rounded up to its multiples
    multiple: int | None  # of DPT: sides are rounded to its multiples
    keep_aspect: bool  # of DPT
    resample: int  # PIL's number
    scale: float  # of pixel values 0-255
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    flip: bool  # RGB to BGR

    def __call__(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [-1, 1] as the network reads them; differentiable.

        Gradients pass the rounding to 8 bits as if it were not there.
        """
        levels = _rounded((images.clamp(-1, 1).double() + 1) * 127.5)
        height, width = self.target(*images.shape[-2:])
        levels = resized(levels, height, width, self.resample)
        x = levels.to(images.dtype) * self.scale
        mean, std = (x.new_tensor(v).view(1, -1, 1, 1) for v in (self.mean, self.std))
        x = (x - mean) / std
        return x.flip(1) if self.flip else x

    def target(self, height: int, width: int) -> tuple[int, int]:
        """The size of an image of height x width px, for the network."""
        if not self.size:
            return height, width
        fixed = "height" in self.size
        sides = self._fixed(height, width) if fixed else self._edge(height, width)
        if not all(1 <= side <= MAX_SIDE for side in sides):
            raise InputError(
                f"a processor that resizes to {sides[0]} x {sides[1]} px",
                f"1 to {MAX_SIDE}",
                "mend `size` in preprocessor_config.json",
            )
        return sides

    def _fixed(self, height: int, width: int) -> tuple[int, int]:
        down, across = self.size["height"], self.size["width"]
        if self.multiple is None:
            return self._divisible(down, across)
        factors = down / height, across / width
        if self.keep_aspect:  # of DPT: scale as little as possible
            factors = (min(factors[::-1], key=lambda f: abs(1 - f)),) * 2
        unit = self.multiple
        return round(factors[0] * height / unit) * unit, round(factors[1] * width / unit) * unit

    def _edge(self, height: int, width: int) -> tuple[int, int]:
        short, long = min(height, width), max(height, width)
        edge, longest = float(self.size["shortest_edge"]), self.size.get("longest_edge")
        if longest and long / short * edge > longest:
            edge = longest * short / long
        sides = round(edge), int(edge * long / short)
        return self._divisible(*(sides if height <= width else sides[::-1]))

    def _divisible(self, height: int, width: int) -> tuple[int, int]:
        unit = self.divisor
        return math.ceil(height / unit) * unit, math.ceil(width / unit) * unit


def of_processor(processor: Any, path: object) -> Preprocessing:
    """The steps of an image processor of transformers; InputError names a setting that is wrong."""

    def get(name: str, default: Any = None) -> Any:
        found = getattr(processor, name, None)
        return default if found is None else found

    size = {k: int(v) for k, v in dict(get("size", {})).items() if v is not None}
    if get("do_center_crop"):  # not its middle: the whole image, at the size that is left
        size = {k: int(v) for k, v in dict(get("crop_size", size)).items() if v is not None}
    if hasattr(processor, "crop_pct") and "shortest_edge" in size:  # ConvNeXt: a square
        size = dict.fromkeys(("height", "width"), size["shortest_edge"])
    if not {"height", "width"} <= size.keys() and "shortest_edge" not in size:
        raise InputError(
            f"{path}, whose processor resizes to {size}",
            "a size of height and width, or of shortest_edge",
            "mend `size` in preprocessor_config.json",
        )
    flips = bool(get("do_flip_channel_order", False))
    normalizes = bool(get("do_normalize", False)) and not hasattr(processor, "flip_channel_order")
    dpt = hasattr(processor, "ensure_multiple_of")
    return Preprocessing(
        size if get("do_resize", False) else {},
        max(int(get("size_divisor", 0)), 1) if not dpt else 1,
        max(int(get("ensure_multiple_of", 1)), 1) if dpt else None,
        bool(get("keep_aspect_ratio", False)),
        _filter(get("resample", 2), path),
        float(get("rescale_factor", 1 / 255)) if get("do_rescale", False) else 1.0,
        _three(get("image_mean", 0.0) if normalizes else 0.0, "image_mean", path),
        _three(get("image_std", 1.0) if normalizes else 1.0, "image_std", path),
        flips,
    )


def _filter(resample: Any, path: object) -> int:
    number = int(resample)
    if number not in (NEAREST, *RADII):
        raise InputError(f"{path} of resample {number}", "0 to 5", "mend preprocessor_config.json")
    return number


def _three(value: Any, name: str, path: object) -> tuple[float, float, float]:
    values = [float(value)] * 3 if isinstance(value, int | float) else [float(v) for v in value]
    if (
        len(values) != 3
        or not all(map(math.isfinite, values))
        or (name == "image_std" and 0 in values)
    ):
        raise InputError(f"{path} of {name} {values}", "3 numbers", "mend preprocessor_config.json")
    return values[0], values[1], values[2]


def _rounded(x: Tensor) -> Tensor:
    """Levels 0-255, halves up as PIL rounds; the gradient is that of the identity."""
    return x + ((x + 0.5).floor().clamp(0, 255) - x).detach()


def resized(levels: Tensor, height: int, width: int, resample: int) -> Tensor:
    """Levels [N, 3, H, W] in float64, resized as PIL does: across, then down."""
    for axis, side in ((3, width), (2, height)):
        given = levels.shape[axis]
        if given == side:
            continue
        if resample == NEAREST:
            steps = accumulate([given / side * 0.5] + [given / side] * (side - 1))  # as PIL adds
            at = torch.tensor([min(int(step), given - 1) for step in steps])
            levels = levels.index_select(axis, at.to(levels.device))
            continue
        weights = _weights(given, side, resample).to(levels.device)
        moved = levels @ weights.T if axis == 3 else weights @ levels
        levels = _rounded(moved)
    return levels


@lru_cache(16)
@torch.inference_mode(False)  # kept for passes that take gradients, too
def _weights(given: int, side: int, resample: int) -> Tensor:
    """PIL's weights [side, given]: fixed-point, which float64 holds exactly."""
    scale = given / side
    stretch = max(scale, 1.0)
    radius = RADII[resample] * stretch
    weights = torch.zeros(side, given, dtype=torch.float64)
    for i in range(side):
        center = (i + 0.5) * scale
        first, last = max(int(center - radius + 0.5), 0), min(int(center + radius + 0.5), given)
        row = [_kernel((j - center + 0.5) / stretch, resample) for j in range(first, last)]
        total = sum(row)
        fixed = [int(v / total * 2**BITS + math.copysign(0.5, v)) / 2**BITS for v in row]
        weights[i, first:last] = torch.tensor(fixed, dtype=torch.float64)
    return weights


def _kernel(x: float, resample: int) -> float:
    """PIL's filters: 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming."""
    if resample == 4:
        return float(-0.5 < x <= 0.5)
    x = abs(x)
    if x >= RADII[resample]:
        return 0.0
    if resample == 2:
        return 1 - x
    if resample == 3:
        return (1.5 * x - 2.5) * x * x + 1 if x < 1 else ((-0.5 * x + 2.5) * x - 4) * x + 2
    if x == 0:
        return 1.0
    sinc = math.sin(math.pi * x) / (math.pi * x)
    if resample == 1:
        return sinc * math.sin(math.pi * x / 3) / (math.pi * x / 3)
    return sinc * (0.54 + 0.46 * math.cos(math.pi * x))
