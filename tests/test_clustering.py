import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from pipeline.editing.style.clustering import (
    SphericalKMeans,
    best_union,
    cluster_iou,
    contingency,
    lloyd,
    majority_class,
    plus_plus,
    predict,
    to_unit,
    union_iou,
)
from pipeline.runtime.errors import InputError

GOLDEN = json.loads((Path(__file__).parent / "data" / "editing_in_style.json").read_text())


def golden_maps():
    """A [sample, channel, y, x] of the golden file, of zero mean and unit variance per image."""
    n, c, h, w = np.meshgrid(*map(np.arange, (2, 6, 4, 4)), indexing="ij")
    angle = 1 + 0.7 * n + 1.3 * c + 0.9 * h * w + 0.31 * h * (c + 1) + 0.17 * w * (c + 2)
    maps = np.sin(angle)
    return (maps - maps.mean((2, 3), keepdims=True)) / maps.std((2, 3), keepdims=True)


def planted(seed=0, clusters=6, each=200, channels=16, noise=0.15):
    """Vectors of any length around orthogonal directions, and which of them each belongs to."""
    rng = np.random.default_rng(seed)
    centers = np.linalg.qr(rng.normal(size=(channels, channels)))[0][:clusters]
    labels = np.repeat(np.arange(clusters), each)
    vectors = centers[labels] + noise * rng.normal(size=(len(labels), channels))
    vectors *= rng.uniform(0.1, 10, (len(labels), 1))
    return vectors.astype(np.float32), labels, centers


def test_lloyd_gives_the_published_course():
    vectors = to_unit(golden_maps().transpose(0, 2, 3, 1).reshape(-1, 6).copy())
    known = GOLDEN["spherical_kmeans"]
    found = lloyd(vectors, vectors[[0, 7, 19]], known["iters"])
    np.testing.assert_allclose(found.objective, known["objective"], rtol=1e-12)
    np.testing.assert_array_equal(found.labels, known["labels"])
    np.testing.assert_allclose(found.centroids, known["centroids"], atol=1e-12)


def test_planted_directions_are_found_whatever_the_lengths():
    vectors, labels, centers = planted()
    found = SphericalKMeans(6, restarts=4, seed=3).fit(vectors)
    order = (centers @ found.centroids.T).argmax(1)
    assert sorted(order) == list(range(6)), "a cluster each"
    np.testing.assert_array_equal(found.labels, order[labels])
    np.testing.assert_allclose(np.linalg.norm(found.centroids, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(predict(7 * vectors, found.centroids), found.labels)


def test_a_seed_repeats_itself_and_more_restarts_are_never_worse():
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(500, 8)).astype(np.float32)
    fits = {r: SphericalKMeans(7, restarts=r, seed=5).fit(vectors.copy()) for r in (1, 4)}
    again = SphericalKMeans(7, restarts=4, seed=5).fit(vectors.copy())
    np.testing.assert_array_equal(fits[4].labels, again.labels)
    assert fits[4].objective[-1] >= fits[1].objective[-1]
    other = SphericalKMeans(7, restarts=4, seed=6).fit(vectors.copy())
    assert not np.array_equal(fits[4].labels, other.labels)


def test_the_objective_never_falls():
    rng = np.random.default_rng(2)
    vectors = to_unit(rng.normal(size=(400, 5)))
    found = lloyd(vectors, plus_plus(vectors, 9, rng), 50)
    assert len(found.objective) > 3 and np.all(np.diff(found.objective) >= -1e-9)


def test_an_empty_cluster_takes_the_farthest_vector():
    vectors = to_unit(np.array([[1, 0.01], [1, 0.0], [1, -0.01], [-0.2, 1.0]]))
    start = to_unit(np.array([[1.0, 0.0], [-1.0, -1.0]]))  # nothing is near the second
    found = lloyd(vectors, start, 5)
    np.testing.assert_array_equal(found.labels, [0, 0, 0, 1])
    np.testing.assert_allclose(found.centroids[1], vectors[3])


def test_plus_plus_draws_far_vectors():
    vectors, labels, _ = planted(noise=0.01)
    to_unit(vectors)
    drawn = plus_plus(vectors, 6, np.random.default_rng(0))
    assert len(set(predict(drawn, np.stack([vectors[labels == k][0] for k in range(6)])))) == 6


def test_vectors_of_zeros_stay_and_too_few_vectors_are_refused():
    np.testing.assert_array_equal(to_unit(np.array([[0.0, 0.0], [3.0, 4.0]])), [[0, 0], [0.6, 0.8]])
    with pytest.raises(InputError, match="got 3 vectors for 4 clusters"):
        SphericalKMeans(4).fit(np.eye(3, dtype=np.float32))


def test_pixels_are_counted_by_cluster_and_class():
    labels, classes = np.array([[0, 0, 2], [2, 2, 1]]), np.array([[3, 0, 1], [1, 0, 3]], np.uint8)
    known = [[1, 0, 0, 1], [0, 0, 0, 1], [1, 2, 0, 0]]
    np.testing.assert_array_equal(contingency(labels, classes, 3, 4), known)


def test_clusters_have_the_published_names():
    known = GOLDEN["cluster_label"]
    table = np.array(known["contingency"])
    np.testing.assert_allclose(cluster_iou(table), known["iou"])
    np.testing.assert_array_equal(cluster_iou(table).argmax(1), known["best_iou_class"])
    majority, purity = majority_class(table)
    np.testing.assert_array_equal(majority, known["majority"])
    np.testing.assert_allclose(purity, known["purity"])


def test_the_union_rule_gives_the_published_union():
    known = GOLDEN["union_label"]
    inside, sizes = np.array(known["inter"]), np.array(known["cluster_size"])
    chosen, iou = best_union(inside, sizes, known["teacher_size"])
    assert chosen == known["chosen"] and iou == pytest.approx(known["best_iou"])
    assert union_iou(np.append(inside, 15), np.append(sizes, 15), chosen) == pytest.approx(iou)


@pytest.mark.parametrize("seed", range(20))
def test_no_other_union_is_better(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 50, 7)
    inside = rng.integers(0, sizes + 1)
    inside[rng.random(7) < 0.3] = 0
    target = int(inside.sum()) + int(rng.integers(0, 20))
    unions = [list(u) for r in range(1, 8) for u in combinations(range(7), r)]
    every = [inside[u].sum() / (target + sizes[u].sum() - inside[u].sum()) for u in unions]
    chosen, iou = best_union(inside, sizes, target)
    assert iou == pytest.approx(max(every, default=0), abs=1e-12)
    assert iou == 0 or iou == pytest.approx(every[unions.index(sorted(chosen))])


def test_a_target_without_pixels_has_no_union():
    assert best_union(np.zeros(3, int), np.array([4, 5, 6]), 0) == ([], 0.0)
    assert np.isnan(union_iou(np.zeros(3, int), np.array([4, 5, 6]), []))
