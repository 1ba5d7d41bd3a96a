"""CIELAB (CIE 1976) from sRGB, and how different images look to an eye."""

from itertools import combinations

import numpy as np
from jaxtyping import Float, UInt8

# Linear sRGB to XYZ under D65 (IEC 61966-2-1), and the white point that makes white L* = 100.
TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
WHITE = TO_XYZ.sum(1)
KNEE = 6 / 29  # below its cube the cube root is replaced by a line


def lab(
    images: UInt8[np.ndarray, "sample 3 height width"],
) -> Float[np.ndarray, "sample 3 height width"]:
    """L* in 0-100, a*, b* of sRGB images."""
    return lab_of(images / 255)


def lab_of(
    srgb: Float[np.ndarray, "sample 3 height width"],
) -> Float[np.ndarray, "sample 3 height width"]:
    """L* in 0-100, a*, b* of sRGB values in 0-1."""
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    xyz = np.einsum("xc,nchw->nxhw", TO_XYZ, linear) / WHITE[:, None, None]
    x, y, z = np.where(xyz > KNEE**3, np.cbrt(xyz), xyz / (3 * KNEE**2) + 4 / 29).swapaxes(0, 1)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def squared_error(
    first: UInt8[np.ndarray, "sample 3 height width"],
    second: UInt8[np.ndarray, "sample 3 height width"],
) -> Float[np.ndarray, "sample height width"]:
    """Squared CIELAB distance (Delta E 1976) of every pixel."""
    return ((lab(first) - lab(second)) ** 2).sum(1)


def diversity(images: UInt8[np.ndarray, "sample 3 height width"]) -> float:
    """Mean CIELAB distance (Delta E 1976) over pixels and pairs of images; NaN for one image."""
    colors = lab(images)
    pairs = [np.sqrt(((one - other) ** 2).sum(0)).mean() for one, other in combinations(colors, 2)]
    return float(np.mean(pairs)) if pairs else float("nan")
