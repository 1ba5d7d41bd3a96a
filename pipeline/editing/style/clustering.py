"""Spherical k-means over feature vectors, and names for clusters from a teacher's masks.

The catalog of Collins et al., "Editing in Style" (CVPR 2020), sec. 3.1; there a human names it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Integer

from pipeline.runtime.errors import InputError

Vectors = Float[np.ndarray, "vector channel"]
Centroids = Float[np.ndarray, "cluster channel"]

BLOCK = 8192  # vectors a step: stay in the cache between being compared and being summed


@dataclass(frozen=True)
class Clustering:
    """Unit centroids, the cluster of each vector, and the sum of cosines at each iteration."""

    centroids: Centroids
    labels: Int[np.ndarray, " vector"]
    objective: list[float]


class SphericalKMeans:
    """k-means by cosine: the best of several seeded runs of Lloyd's algorithm."""

    def __init__(
        self,
        num_clusters: int,
        restarts: int = 10,
        iterations: int = 100,  # of a run, at most
        tolerance: float = 1e-4,  # stop when the mean cosine gains less
        seed: int = 0,
    ):
        self.num_clusters, self.restarts, self.iterations = num_clusters, restarts, iterations
        self.tolerance, self.seed = tolerance, seed

    def fit(self, vectors: Vectors) -> Clustering:
        """Cluster vectors, which are scaled to unit length in place; zeros are no direction."""
        if len(vectors) < self.num_clusters:
            raise InputError(
                f"{len(vectors)} vectors for {self.num_clusters} clusters",
                "at least one a cluster",
                "take more samples, a finer layer, or fewer clusters",
            )
        to_unit(vectors)
        rng = np.random.default_rng(self.seed)
        best: Clustering | None = None
        for _ in range(self.restarts):
            start = plus_plus(vectors, self.num_clusters, rng)
            found = lloyd(vectors, start, self.iterations, self.tolerance)
            if best is None or found.objective[-1] > best.objective[-1]:
                best = found
        if best is None:
            raise InputError(f"restarts {self.restarts}", "at least 1", "change restarts")
        return best


def to_unit(vectors: Vectors) -> Vectors:
    """Scale each row to unit length, in place; a row of zeros stays."""
    for start in range(0, len(vectors), BLOCK):
        rows = vectors[start : start + BLOCK]
        norms = np.sqrt(np.einsum("vc,vc->v", rows, rows))
        rows /= np.where(norms > 0, norms, 1)[:, None]
    return vectors


def plus_plus(vectors: Vectors, num_clusters: int, rng: np.random.Generator) -> Centroids:
    """k-means++ on the sphere: each centroid drawn by its squared chord 2 (1 - cosine)."""
    chosen = [int(rng.integers(len(vectors)))]
    nearest = np.full(len(vectors), -1.0)  # cosine to the nearest centroid so far
    for _ in range(num_clusters - 1):
        nearest = np.maximum(nearest, vectors @ vectors[chosen[-1]])
        chance = np.cumsum(np.clip(1 - nearest, 0, None))
        drawn = np.searchsorted(chance, rng.random() * chance[-1], side="right")
        chosen.append(min(int(drawn), len(vectors) - 1))
    return vectors[chosen].copy()


def lloyd(
    vectors: Vectors, centroids: Centroids, iterations: int, tolerance: float = 0.0
) -> Clustering:
    """Alternate assignment and means; ends when no label changes or the gain is too small."""
    objective: list[float] = []
    labels = np.full(len(vectors), -1)
    for _ in range(iterations):
        before, (labels, cosines, sums) = labels, _assign(vectors, centroids)
        objective.append(float(cosines.sum(dtype=np.float64)))
        gain = np.inf if len(objective) < 2 else objective[-1] - objective[-2]
        if np.array_equal(labels, before) or gain < tolerance * len(vectors):
            break
        centroids = _means(vectors, labels, cosines, sums)
    return Clustering(centroids, labels, objective)


def _assign(vectors: Vectors, centroids: Centroids) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nearest centroid of each vector, its cosine, and each cluster's sum of vectors."""
    labels = np.empty(len(vectors), np.int64)
    cosines = np.empty(len(vectors), vectors.dtype)
    sums = np.zeros(centroids.shape)
    for start in range(0, len(vectors), BLOCK):
        rows = vectors[start : start + BLOCK]
        scores = rows @ centroids.T
        nearest = scores.argmax(1)
        block = slice(start, start + len(rows))
        labels[block], cosines[block] = nearest, scores[np.arange(len(rows)), nearest]
        members = (nearest[None] == np.arange(len(centroids))[:, None]).astype(vectors.dtype)
        sums += members @ rows
    return labels, cosines, sums


def _means(
    vectors: Vectors, labels: np.ndarray, cosines: np.ndarray, sums: np.ndarray
) -> Centroids:
    """Unit means; an empty cluster takes the vector farthest from its own centroid."""
    empty = np.flatnonzero(np.bincount(labels, minlength=len(sums)) == 0)
    farthest = np.argsort(cosines, kind="stable")[: len(empty)]
    sums[empty] = vectors[farthest]
    return to_unit(sums).astype(vectors.dtype)


def predict(vectors: Vectors, centroids: Centroids) -> Int[np.ndarray, " vector"]:
    """The nearest centroid of each vector, whatever the vector's length."""
    return np.concatenate(
        [
            (vectors[start : start + BLOCK] @ centroids.T).argmax(1)
            for start in range(0, len(vectors), BLOCK)
        ]
    )


def contingency(
    labels: Integer[np.ndarray, "*shape"],
    classes: Integer[np.ndarray, "*shape"],
    num_clusters: int,
    num_classes: int,
) -> Int[np.ndarray, "cluster class"]:
    """Pixels of each cluster and class, from two id maps of one shape."""
    pairs = labels.astype(np.int64).ravel() * num_classes + classes.ravel()
    counts = np.bincount(pairs, minlength=num_clusters * num_classes)
    return counts.reshape(num_clusters, num_classes)


def cluster_iou(table: Int[np.ndarray, "cluster class"]) -> Float[np.ndarray, "cluster class"]:
    """IoU of every single cluster with every class; 0 where both are empty."""
    union = table.sum(1, keepdims=True) + table.sum(0, keepdims=True) - table
    return table / np.maximum(union, 1)


def best_union(
    intersection: Int[np.ndarray, " cluster"], sizes: Int[np.ndarray, " cluster"], target: int
) -> tuple[list[int], float]:
    """The set of clusters whose union has the highest IoU J with a target, and J.

    intersection, sizes, target in pixels. A cluster of s pixels, i of them inside, raises the J of
    a union just if i / (s - i) > J, that is, if its precision i / s > J / (1 + J); so clusters are
    taken in the order of precision while that holds.
    """
    precision = intersection / np.maximum(sizes, 1)
    chosen, inside, size = [], 0, 0
    for cluster in np.argsort(-precision, kind="stable"):
        iou = inside / max(target + size - inside, 1)
        if precision[cluster] <= iou / (1 + iou):
            break
        chosen.append(int(cluster))
        inside, size = inside + int(intersection[cluster]), size + int(sizes[cluster])
    return chosen, inside / max(target + size - inside, 1)


def union_iou(
    intersection: Int[np.ndarray, " cluster"],
    sizes: Int[np.ndarray, " cluster"],
    clusters: Sequence[int],
) -> float:
    """IoU of a union of clusters with a target that all clusters together cover; NaN: none."""
    if not (target := intersection.sum()):
        return float("nan")
    inside, size = intersection[list(clusters)].sum(), sizes[list(clusters)].sum()
    return float(inside / (target + size - inside))


def majority_class(
    table: Int[np.ndarray, "cluster class"],
) -> tuple[Int[np.ndarray, " cluster"], Float[np.ndarray, " cluster"]]:
    """The most frequent class of each cluster, and its share of the cluster's pixels."""
    return table.argmax(1), table.max(1) / np.maximum(table.sum(1), 1)
