"""Poisson image editing (Pérez et al., SIGGRAPH 2003): the reference's gradients in a region."""

import numpy as np
from jaxtyping import Bool, UInt8

NEIGHBORS = ((-1, 0), (1, 0), (0, -1), (0, 1))


def poisson_blend(
    own: UInt8[np.ndarray, "3 height width"],
    other: UInt8[np.ndarray, "3 height width"],
    region: Bool[np.ndarray, "height width"],
) -> UInt8[np.ndarray, "3 height width"]:
    """The image whose Laplacian in the region is that of `other` and that is `own` elsewhere.

    For each pixel p of the region: sum over its neighbors q of f(p) - f(q) = the same of `other`;
    neighbors outside the region are known, those outside the image do not exist.
    """
    from scipy.sparse import csc_array
    from scipy.sparse.linalg import splu

    count = int(region.sum())
    if not count or region.all():  # nothing to fill, or no edge that sets the colors
        return other.copy() if count else own.copy()
    number = np.full(region.shape, -1)
    number[region] = np.arange(count)
    degree, right = np.zeros(count), np.zeros((count, 3))
    rows, columns = [np.arange(count)], [np.arange(count)]
    pixels = np.stack(np.nonzero(region))
    for step in NEIGHBORS:
        beside = pixels + np.array(step)[:, None]
        inside = ((beside >= 0) & (beside < np.array(region.shape)[:, None])).all(0)
        p, here, there = np.flatnonzero(inside), pixels[:, inside], beside[:, inside]
        degree[p] += 1
        right[p] += (other[:, *here].astype(float) - other[:, *there]).T
        known = ~region[tuple(there)]
        right[p[known]] += own[:, *there[:, known]].T
        rows.append(p[~known])
        columns.append(number[tuple(there[:, ~known])])
    at = np.concatenate(rows), np.concatenate(columns)
    values = np.concatenate([degree, -np.ones(len(at[0]) - count)])
    solved = splu(csc_array((values, at), (count, count))).solve(right)
    blended = own.copy()
    blended[:, region] = solved.clip(0, 255).round().T
    return blended
