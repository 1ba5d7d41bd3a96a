import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.analysis.geometry import centers as geometry
from pipeline.analysis.geometry.centers import Draw, Drawn, Similarity
from pipeline.runtime.errors import InputError

GOLDEN = json.loads((Path(__file__).parent / "data" / "directions.json").read_text())


def vectors(images: int = 4, per_image: int = 6, num_classes: int = 3, channels: int = 5):
    """Unit vectors [pixel, channel] with their image and class; class 2 is in images 0 and 1."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((images * per_image, channels)) + 0.5
    image = np.repeat(np.arange(images), per_image)
    classes = rng.integers(0, num_classes - 1, len(x))
    classes[(image < 2) & (np.arange(len(x)) % 3 == 0)] = num_classes - 1
    return x / np.linalg.norm(x, axis=1, keepdims=True), image, classes


def similarity(x, image, classes, num_classes: int = 3) -> Similarity:
    ones = np.ones(len(x))
    pairs = [
        geometry.unit_sums(x[image == i], classes[image == i], ones[image == i], num_classes)
        for i in range(image.max() + 1)
    ]
    return Similarity(np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs]))


@pytest.mark.parametrize(
    "across, times, shows",
    [
        (False, None, "every pair of pixels, a pixel with itself included"),
        (True, None, "pairs of one image are left out"),
        (False, [2, 0, 1, 1], "an image drawn twice counts twice"),
        (True, [2, 0, 3, 1], "copies of one image are one image"),
    ],
)
def test_cosines_by_sums_are_the_mean_of_the_full_matrix(across, times, shows):
    x, image, classes = vectors()
    found = similarity(x, image, classes).matrix(None if times is None else np.array(times), across)
    weight = np.ones(4) if times is None else np.array(times, float)
    pairs = np.outer(weight[image], weight[image])
    if across:
        pairs *= image[:, None] != image[None]
    for a in range(3):
        for b in range(3):
            share = pairs * np.outer(classes == a, classes == b)
            wanted = (share * (x @ x.T)).sum() / share.sum() if share.sum() else np.nan
            np.testing.assert_allclose(found[a, b], wanted, atol=1e-12, err_msg=shows)


def test_scaling_a_pixel_changes_no_sum():
    x, _, classes = vectors()
    weights = np.linspace(1, 2, len(x))
    length = np.linspace(0.1, 9, len(x))[:, None]
    for plain, scaled in zip(
        geometry.unit_sums(x, classes, weights, 3),
        geometry.unit_sums(x * length, classes, weights, 3),
        strict=True,
    ):
        np.testing.assert_allclose(plain, scaled)


def cones(spread: float, seed: int = 0):
    """Pixels of any length around one direction a class, and the directions."""
    rng = np.random.default_rng(seed)
    axes = geometry.unit(rng.standard_normal((4, 20)))
    classes = rng.integers(0, 4, 400)
    x = axes[classes] + spread * rng.standard_normal((400, 20)) / 20**0.5
    return x * rng.uniform(0.1, 10, (400, 1)), classes, axes


def test_centers_of_planted_cones_are_their_axes_and_segment_exactly():
    x, classes, axes = cones(0.2)
    centers = geometry.centers(geometry.unit_sums(x, classes, np.ones(400), 4)[0])
    assert (geometry.cosines(centers, axes).diagonal() > 0.999).all()
    np.testing.assert_array_equal(geometry.cosines(x, centers).argmax(1), classes)
    np.testing.assert_array_equal((x @ centers.T).argmax(1), classes)  # no norm is needed


def test_a_class_without_pixels_is_the_nearest_to_none():
    x, classes, _ = cones(0.2)
    x = np.abs(x)
    centers = geometry.centers(geometry.unit_sums(x, classes, np.ones(400), 5)[0])
    assert not ((x @ centers.T).argmax(1) == 4).any()


def test_own_maxima_and_their_share():
    matrix = np.array([[0.5, 0.6, np.nan], [0.1, 0.3, np.nan], [np.nan] * 3])
    flags = geometry.own_is_maximum(matrix)
    np.testing.assert_array_equal(flags, [0, 1, np.nan])
    assert geometry.share_of(flags) == 0.5


def test_the_share_of_planted_cones_is_whole_and_of_shuffled_classes_is_not():
    x, classes, _ = cones(0.2)
    image = np.arange(400) % 8
    planted = similarity(geometry.unit(x), image, classes, 4)
    assert planted.share_of_maxima(draws=50) == (1.0, 1.0, 1.0)
    shuffled = similarity(geometry.unit(x), image, np.random.default_rng(1).permutation(classes), 4)
    share, low, high = shuffled.share_of_maxima(across=True, draws=50)
    assert low <= share <= high and share < 1


# Fair sampling


@pytest.mark.parametrize(
    "areas, sizes, plan, shows",
    [
        ([[9, 9], [9, 9], [9, 9]], (5, 10, 9), [(0, (0, 1)), (1, (0, 1))], "full after two images"),
        ([[9, 4], [9, 5]], (5, 10, 9), [(0, (0,)), (1, (0, 1))], "T1 pixels or none"),
        ([[9, 0], [9, 0], [9, 0]], (5, 5, 9), [(0, (0,))], "an image with nothing to add is free"),
        ([[9, 0], [9, 0], [9, 7]], (5, 5, 9), [(0, (0,)), (2, (1,))], "a rare class later"),
        ([[9, 9]] * 9, (5, 100, 3), [(r, (0, 1)) for r in range(3)], "the cap ends it"),
        ([[9, 0]] * 2, (5, 100, 9), [(0, (0,)), (1, (0,))], "images end before a pool is full"),
        ([[9, 9]], (4, 6, 9), [(0, (0, 1))], "at most T1 of one image"),
    ],
)
def test_fair_sampling_fills_pools(areas, sizes, plan, shows):
    wanted = [Draw(row, classes) for row, classes in plan]
    assert geometry.fair_plan(np.array(areas), *sizes) == wanted, shows


def test_fair_sampling_of_nothing_is_one_sentence():
    with pytest.raises(InputError, match=r"fair sampling of 0 pixels.*raise fair_pixels"):
        geometry.fair_plan(np.ones((1, 2), int), 0, 5, 5)


def test_fair_places_are_different_pixels_of_their_class():
    mask = np.random.default_rng(0).integers(0, 3, (16, 16)).astype(np.uint8)
    places = geometry.fair_places(mask, Draw(0, (0, 2)), 30, seed=5)
    assert places.shape == (2, 30)
    for row, label in zip(places, (0, 2), strict=True):
        assert len(np.unique(row)) == 30
        assert (mask.ravel()[row] == label).all()
    assert not np.array_equal(places, geometry.fair_places(mask, Draw(0, (0, 2)), 30, seed=6))


# Selection and detectors


def test_greedy_selection_finds_the_planted_pair():
    worth = {(2,): 5, (0, 2): 6, (1, 2): 9, (2, 3): 7, (0, 1, 2): 9, (1, 2, 3): 10}
    nested = geometry.greedy(range(4), lambda chosen: worth.get(chosen, 0), 3)
    assert nested == [(2,), (1, 2), (1, 2, 3)]
    assert len(geometry.greedy(range(2), len, 9)) == 2, "no more than there are"


def planted(seed: int) -> Drawn:
    """Channel 3 is high on class 1, channel 0 on most of it and on some of class 0."""
    rng = np.random.default_rng(seed)
    classes = np.repeat([0, 1], [300, 100])
    x = rng.standard_normal((400, 6)).astype(np.float32)
    x[:, 3] += 20 * classes
    x[:, 0] += 20 * (rng.random(400) < np.where(classes, 0.8, 0.1))
    weights = np.where(classes, 0.5, 1.0).astype(np.float32)  # 50 of 350 by weight
    return Drawn(x, classes, weights)


def test_the_planted_detector_is_found_and_scored_on_other_pixels():
    train, held = planted(0), planted(1)
    found = geometry.detectors(train, held, 3, (0.05, 0.13, 0.5))
    assert (found[1].channel, found[1].share) == (3, 0.13)
    assert found[1].iou > 0.9
    assert found[2] is None, "a class without pixels has none"
    noise = Drawn(np.random.default_rng(2).standard_normal((400, 6)), held.classes, held.weights)
    assert geometry.detectors(train, noise, 3, (0.13,))[1].iou < 0.3


def test_levels_are_weighted_quantiles():
    drawn = planted(0)
    level = geometry.levels(drawn, (0.2, 0.5))
    assert level.shape == (2, 6)
    on = (drawn.weights[:, None] * (drawn.columns > level[0])).sum(0) / drawn.weights.sum()
    np.testing.assert_allclose(on, 0.2, atol=0.05)


def test_the_most_informative_level_is_chosen_not_the_one_of_the_best_iou():
    """Class 1 is 70 % of the pixels, so that a channel that is on nearly everywhere has its IoU."""
    rng, classes = np.random.default_rng(0), np.repeat([0, 1], [300, 700])
    sure = rng.permutation(np.arange(300, 1000))[:300]  # of class 1, where channel 0 is high
    x = rng.random((1000, 2))
    x[sure, 0] += 10
    drawn = Drawn(x, classes, np.ones(1000))
    shares = (0.3, 0.95)
    tight, loose = (
        geometry.channel_scores(drawn, level, 2) for level in geometry.levels(drawn, shares)
    )
    assert tight[0][1, 0] < loose[0][1, 0] and tight[1][1, 0] > loose[1][1, 0]
    found = geometry.detectors(drawn, drawn, 2, shares)[1]
    assert (found.channel, found.share) == (0, 0.3)
    assert found.iou == pytest.approx(300 / 700, abs=0.01)


def test_the_channel_of_the_best_iou_is_chosen_not_the_most_informative_one():
    """Channel 0 is on exactly outside class 1: it tells all of it, and detects nothing."""
    classes = np.repeat([0, 1], 100)
    x = np.stack([1.0 - classes, classes], 1)
    x[90:120, 1] = 1 - x[90:120, 1]  # channel 1 errs
    x += np.linspace(0, 0.1, 200)[:, None]
    drawn = Drawn(x, classes, np.ones(200))
    iqr = geometry.channel_scores(drawn, np.array([0.5, 0.5]), 2)[1][1]
    assert iqr[0] == pytest.approx(1) and iqr[1] < 0.7
    assert geometry.detectors(drawn, drawn, 2, (0.5,))[1].channel == 1


def test_the_published_information_quality_ratios():
    """One map of 64 pixels at four levels, and a class of 25 (GAN Dissection's definition)."""
    wanted = GOLDEN["dissect"]
    rows = np.array([[row["both"], row["on"], wanted["inside"]] for row in wanted["levels"]], float)
    iou, iqr = geometry.iou_and_iqr(*rows.T, wanted["total"])
    np.testing.assert_allclose(iou, [row["iou"] for row in wanted["levels"]], rtol=0, atol=1e-9)
    np.testing.assert_allclose(iqr, [row["iqr"] for row in wanted["levels"]], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "both, on, inside, iou, iqr, shows",
    [
        (4, 4, 4, 1, 1, "on exactly where the class is"),
        (0, 6, 4, 0, 1, "on exactly where it is not: as informative, and no detector"),
        (2, 5, 4, 2 / 7, 0, "independent"),
        (0, 0, 4, 0, 0, "never on"),
        (4, 10, 4, 0.4, 0, "always on"),
        (0, 5, 0, 0, 0, "a class without pixels"),
        (0, 0, 0, 0, 0, "one cell holds all pixels: off, and not of the class"),
        (10, 10, 10, 1, 0, "one cell holds all pixels: on, and of the class"),
        (3, 3.0000001, 3, 1, 1, "rounding makes no cell negative"),
        (3.0000001, 3, 3, 1, 1, "rounding makes no cell negative"),
    ],
)
def test_iou_and_iqr_at_their_ends(both, on, inside, iou, iqr, shows):
    found = geometry.iou_and_iqr(*np.array([[both], [on], [inside]], float), 10)
    np.testing.assert_allclose(found, [[iou], [iqr]], atol=1e-5, err_msg=shows)


def test_channel_scores_by_hand():
    columns = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    drawn = Drawn(columns, np.array([0, 0, 1, 1]), np.array([1.0, 2.0, 3.0, 4.0]))
    iou, iqr = geometry.channel_scores(drawn, np.array([0.5, 0.5]), 2)
    np.testing.assert_allclose(iou, [[1.0, 2 / 6], [0.0, 3 / 9]])
    # Channel 1: cells 1, 2, 3, 4 of 10, margins 5 and 5, 3 and 7.
    joint = -sum(p * np.log(p) for p in (0.1, 0.2, 0.3, 0.4))
    margins = -sum(p * np.log(p) for p in (0.5, 0.5, 0.3, 0.7))
    np.testing.assert_allclose(iqr, [[1.0, margins / joint - 1]] * 2)
