"""Spherical k-means at the size of Editing in Style: 200 samples of a 32 px layer, 10 restarts."""

import resource
import time
from collections.abc import Callable

import numpy as np

from pipeline.data.stores import open_store
from pipeline.editing.style.catalog import Scaler, candidates, read_maps
from pipeline.editing.style.clustering import Clustering, SphericalKMeans, lloyd, plus_plus

STUDY, SAMPLES, SIDE, CLUSTERS, RESTARTS = "ffhq", 200, 32, 20, 10


def seconds(work: Callable[[], Clustering]) -> tuple[float, float, Clustering]:
    """On the clock, of the processors, and what came of it."""
    start, cpu = time.perf_counter(), time.process_time()
    found = work()
    return time.perf_counter() - start, time.process_time() - cpu, found


def measure() -> dict:
    """Of the whole fit and of one iteration: seconds; GiB at peak, reading included."""
    store = open_store(f"data/features/{STUDY}.json")
    (layer,) = candidates(store, (SIDE,))
    maps = read_maps(store, layer, "train", SAMPLES)
    vectors = Scaler.of(maps, "image")(maps).reshape(-1, maps.shape[-1])
    del maps
    clock, cpu, found = seconds(lambda: SphericalKMeans(CLUSTERS, RESTARTS).fit(vectors))
    start = plus_plus(vectors, CLUSTERS, np.random.default_rng(0))
    one, _, _ = seconds(lambda: lloyd(vectors, start, 5))
    return {
        "layer": layer,
        "vectors": len(vectors),
        "channels": vectors.shape[1],
        "clusters": CLUSTERS,
        "restarts": RESTARTS,
        "s": round(clock, 1),
        "CPU s": round(cpu, 1),
        "s an iteration": round(one / 5, 3),
        "iterations of the best run": len(found.objective),
        "mean cosine to the centroid": round(found.objective[-1] / len(vectors), 4),
        "peak GiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
