"""Images are uint8 in stores and float32 in [-1, 1] in networks; these two convert."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def to_uint8(images: Tensor, size: int) -> np.ndarray:
    """Images [N, 3, R, R] in [-1, 1] to [N, 3, size, size] uint8, area-averaged."""
    factor, rest = divmod(images.shape[-1], size)
    if rest or images.shape[-1] != images.shape[-2]:
        small = F.interpolate(images.float(), (size, size), mode="area")
    else:  # the same sums in the same order, in half the time
        small = F.avg_pool2d(images.float(), factor)
    return small.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).cpu().numpy()


def to_float(images: np.ndarray) -> Tensor:
    """Images [N, 3, S, S] uint8 to float32 in [-1, 1]."""
    return torch.from_numpy(images).float().div(127.5).sub(1)
