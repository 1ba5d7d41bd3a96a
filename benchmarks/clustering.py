"""Spherical k-means at the size of Editing in Style: 200 samples of a 32 px layer, 10 restarts.

Planted directions with noise, so that the answer is known; seconds, peak memory, and how many
vectors are in the cluster of their own direction.
"""

import resource
import time

import numpy as np

from pipeline.clustering import SphericalKMeans

SAMPLES, SIDE, CHANNELS, CLUSTERS, RESTARTS = 200, 32, 512, 20, 10
NOISE = 0.12  # a coordinate; the directions have length 1, the noise 2.7


def vectors() -> tuple[np.ndarray, np.ndarray]:
    """float32 [vector, channel], and the direction of each."""
    rng = np.random.default_rng(0)
    centers = np.linalg.qr(rng.standard_normal((CHANNELS, CLUSTERS)))[0].T.astype(np.float32)
    labels = rng.integers(0, CLUSTERS, SAMPLES * SIDE**2)
    drawn = rng.standard_normal((len(labels), CHANNELS), np.float32)
    drawn *= NOISE
    for start in range(0, len(labels), 8192):
        drawn[start : start + 8192] += centers[labels[start : start + 8192]]
    return drawn, labels


def measure() -> dict:
    """Seconds on the clock and of the processors, GiB at peak, and the share that is right."""
    drawn, labels = vectors()
    start, cpu = time.perf_counter(), time.process_time()
    found = SphericalKMeans(CLUSTERS, RESTARTS).fit(drawn)
    table = np.zeros((CLUSTERS, CLUSTERS), int)
    np.add.at(table, (found.labels, labels), 1)
    return {
        "vectors": len(drawn),
        "channels": CHANNELS,
        "clusters": CLUSTERS,
        "restarts": RESTARTS,
        "s": round(time.perf_counter() - start, 1),
        "CPU s": round(time.process_time() - cpu, 1),
        "peak GiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "iterations of the best run": len(found.objective),
        "vectors in their own cluster, %": round(100 * table.max(1).sum() / len(labels), 2),
    }
