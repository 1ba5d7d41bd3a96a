"""An edit of an inverted photograph, put back onto the photograph in the edit's region.

The generator's image of a photo is near to it, not equal. So the region alone is taken from the
edited image, its colors corrected by how far, around the region, the image is from the photo.
"""

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy import ndimage

from pipeline.runtime.errors import InputError

DILATION, FEATHER = 0.015, 0.025  # of the photo's side: what is taken whole, and the way to nothing
GRID = 64  # cells of a side that colors are corrected on: finer differences are detail
TYPICAL = 16.0  # of 255: a cell that is further from the photo shows something else, and says less

Colors = Float[np.ndarray, "_ _ channel"]
Weights = Float[np.ndarray, "_ _"]


def compose(
    photo: UInt8[np.ndarray, "3 height width"],  # aligned
    before: UInt8[np.ndarray, "3 drawn drawn"],  # the generator's image of the photo's latents
    after: UInt8[np.ndarray, "3 drawn drawn"],  # that of the edited latents
    region: Bool[np.ndarray, "rows rows"],  # of the edit, at the size of masks
    dilation: float = DILATION,  # share of the photo's side that the region grows by
    feather: float = FEATHER,  # share of it over which the edit fades; 0: a hard edge
) -> UInt8[np.ndarray, "3 height width"]:
    """The photo with the edit in it, at the photo's size.

    Beyond the region, grown and faded, it is the photo bit for bit. InputError for a photo that is
    no square, and for negative shares.
    """
    if photo.shape[-1] != photo.shape[-2] or min(dilation, feather) < 0:
        raise InputError(
            f"a photo of {photo.shape[-1]}x{photo.shape[-2]} px, "
            f"dilation {dilation} and feather {feather}",
            "a square photo, and 0 or more",
            "cut the photo by align_photo",
        )
    size = photo.shape[-1]
    weights = feathered(region, size, dilation * size, feather * size)
    if not weights.any():
        return photo.copy()
    images = (one.transpose(1, 2, 0).astype(float) for one in (photo, before, after))
    own, drawn, edited = (_resized(one, size) for one in images)
    edited = edited + _correction(own - drawn, 1 - weights)
    mixed = own + weights[..., None] * (edited - own)
    pixels = mixed.clip(0, 255).round().astype(np.uint8).transpose(2, 0, 1)
    return np.where(weights > 0, pixels, photo)


def feathered(
    region: Bool[np.ndarray, "rows rows"],
    size: int,  # px of what it weighs
    dilation: float,  # px that the region grows by
    feather: float,  # px over which weights fall from 1 to 0
) -> Float[np.ndarray, "size size"]:
    """1 up to `dilation` px from the region, 0 from `feather` px further on, smooth in between."""
    share = _resized(region[..., None].astype(float), size, Image.Resampling.BILINEAR)[..., 0]
    inside = share >= min(0.5, share.max())  # a region may be thinner than a pixel of the photo
    if not region.any():
        return np.zeros((size, size))
    beyond = ndimage.distance_transform_edt(~inside) - dilation
    if feather == 0:
        return (beyond <= 0).astype(float)
    fall = (beyond / feather).clip(0, 1)
    return 1 - fall**2 * (3 - 2 * fall)


def _correction(
    apart: Colors,  # photo minus image
    known: Weights,  # how far it is heeded
) -> Colors:
    """What to add to the edited image: `apart` around the region, led smoothly into it."""
    shares = _resized(known[..., None], GRID, Image.Resampling.BOX)
    sums = _resized(apart * known[..., None], GRID, Image.Resampling.BOX)
    means = sums / shares.clip(1e-9)
    trust = shares[..., 0] / (1 + (np.abs(means).max(-1) / TYPICAL) ** 2)
    return _resized(_filled(means, trust), len(apart), Image.Resampling.BICUBIC)


def _filled(values: Colors, trust: Weights) -> Colors:
    """Cells of little trust take the values around them: push-pull (Gortler et al. 1996)."""
    if len(values) == 1:
        return values
    weighted = np.dstack([values * trust[..., None], trust])
    sums = weighted.reshape(len(trust) // 2, 2, len(trust) // 2, 2, -1).sum((1, 3))
    total = sums[..., -1]
    coarse = _filled(sums[..., :-1] / total.clip(1e-9)[..., None], total.clip(0, 1))
    around = _resized(coarse, len(trust), Image.Resampling.BILINEAR)
    return around + trust[..., None] * (values - around)


def _resized(values: Colors, size: int, how: Image.Resampling = Image.Resampling.LANCZOS) -> Colors:
    """Each channel at size x size px."""
    if values.shape[:2] == (size, size):
        return values
    channels = (Image.fromarray(one.astype(np.float32)) for one in values.transpose(2, 0, 1))
    return np.dstack([np.asarray(one.resize((size, size), how), float) for one in channels])
