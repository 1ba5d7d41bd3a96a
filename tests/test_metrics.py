import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.metrics import iou as metrics
from pipeline.metrics.iou import PixelCounts, miou_dataset, miou_per_image
from pipeline.runtime.errors import InputError

NAN = float("nan")


def masks(*images: str) -> np.ndarray:
    """Masks from rows of digits: "012 110" is one image of two rows."""
    return np.array([[list(map(int, row)) for row in image.split()] for image in images], np.uint8)


# Three classes, 0 the background. Every value can be checked by counting.
CASES = [
    pytest.param(
        masks("0112"), masks("0112"), [1, 1, 1], 1.0, [1, 1, 1], 1.0,
        id="perfect",
    ),
    pytest.param(
        masks("0011"), masks("0111"), [1 / 2, 2 / 3, NAN], 2 / 3, [1 / 2, 2 / 3, NAN], 2 / 3,
        id="a class that never occurs is skipped",
    ),
    pytest.param(
        masks("1111"), masks("0011"), [0, 1 / 2, NAN], 1 / 2, [0, 1 / 2, NAN], 1 / 2,
        id="class 0 is left out of the mean; its pixels are false positives of class 1",
    ),
    pytest.param(
        masks("0001"), masks("1111"), [0, 1 / 4, NAN], 1 / 4, [0, 1 / 4, NAN], 1 / 4,
        id="class 0 predicted on class 1 is a miss of class 1",
    ),
    pytest.param(
        masks("1111", "0002"), masks("1111", "0000"),
        [3 / 4, 1, 0], 1 / 2, [3 / 4, 1, 0], 1 / 2,
        id="one false pixel in an image without the class scores a zero",
    ),
    pytest.param(
        masks("2222", "0002"), masks("2222", "0000"),
        [3 / 4, NAN, 1 / 2], 1 / 2, [3 / 4, NAN, 4 / 5], 4 / 5,
        id="the zero of a false pixel halves per-image IoU and hardly moves the other",
    ),
    pytest.param(
        masks("1111", "0001"), masks("1111", "0011"),
        [2 / 3, 3 / 4, NAN], 3 / 4, [2 / 3, 5 / 6, NAN], 5 / 6,
        id="per image: mean of the images' IoU; dataset: IoU of the sums",
    ),
    pytest.param(
        masks("0000"), masks("0000"), [1, NAN, NAN], NAN, [1, NAN, NAN], NAN,
        id="nothing but background has no score",
    ),
]  # fmt: skip


@pytest.mark.parametrize("predicted, target, per_image, mean, dataset, mean_dataset", CASES)
def test_by_hand(predicted, target, per_image, mean, dataset, mean_dataset):
    scores = miou_per_image(predicted, target, 3)
    np.testing.assert_allclose(scores.per_class, per_image)
    np.testing.assert_allclose(scores.mean, mean)
    scores = miou_dataset(predicted, target, 3)
    np.testing.assert_allclose(scores.per_class, dataset)
    np.testing.assert_allclose(scores.mean, mean_dataset)


def test_background_joins_the_mean_on_request():
    counts = PixelCounts(3)
    counts.add(masks("0011"), masks("0111"))
    pair = counts.intersection_union()
    assert metrics.dataset_scores(*pair).mean == pytest.approx(2 / 3)
    assert metrics.dataset_scores(*pair, background=True).mean == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_counts_add_up_over_batches():
    predicted, target = masks("0012", "2210", "1111"), masks("0112", "2200", "1012")
    whole, parts = PixelCounts(3), PixelCounts(3)
    whole.add(predicted, target)
    parts.add(predicted[:1], target[:1])
    parts.add(predicted[1:], target[1:])
    np.testing.assert_array_equal(whole.per_image, parts.per_image)
    assert whole.per_image[0, 1, 0] == 1, "[target 1, predicted 0]"
    assert whole.per_image.sum() == target.size
    assert PixelCounts(3).per_image.shape == (0, 3, 3)


batches = st.integers(1, 5).flatmap(
    lambda num: st.tuples(
        *[arrays(np.uint8, (num, 3, 4), elements=st.integers(0, 3)) for _ in range(2)]
    )
)
PROTOCOLS = pytest.mark.parametrize("score", [miou_per_image, miou_dataset])


@PROTOCOLS
@given(batches, st.randoms())
@settings(max_examples=50, deadline=None)
def test_the_order_of_images_does_not_matter(score, batch, random):
    predicted, target = batch
    order = random.sample(range(len(target)), len(target))
    one, other = score(predicted, target, 4), score(predicted[order], target[order], 4)
    np.testing.assert_allclose(one.per_class, other.per_class)
    np.testing.assert_allclose(one.mean, other.mean)


@PROTOCOLS
@given(batches)
@settings(max_examples=50, deadline=None)
def test_invariants(score, batch):
    predicted, target = batch
    perfect = score(target, target, 4)
    assert np.all((perfect.per_class == 1) | np.isnan(perfect.per_class))
    scores = score(predicted, target, 4)
    assert np.nanmin(scores.per_class) >= 0 and np.nanmax(scores.per_class) <= 1
    np.testing.assert_allclose(scores.per_class, score(target, predicted, 4).per_class)
    seen = np.isin(range(4), np.union1d(predicted, target))
    np.testing.assert_array_equal(np.isnan(scores.per_class), ~seen)


@given(batches)
@settings(max_examples=50, deadline=None)
def test_one_image_scores_the_same_in_both_protocols(batch):
    predicted, target = (x[:1] for x in batch)
    one, other = miou_per_image(predicted, target, 4), miou_dataset(predicted, target, 4)
    np.testing.assert_allclose(one.per_class, other.per_class)


@pytest.fixture
def noisy():
    """Intersections and unions of 40 images, whose predictions grow worse from left to right."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, 4, (40, 8, 8)).astype(np.uint8)
    pairs = []
    for share in (0.1, 0.3):
        wrong = rng.random(target.shape) < share
        counts = PixelCounts(4)
        counts.add(np.where(wrong, (target + 1) % 4, target).astype(np.uint8), target)
        pairs.append(counts.intersection_union())
    return pairs


@pytest.mark.parametrize("protocol", metrics.PROTOCOLS)
def test_intervals(noisy, protocol):
    good, bad = noisy
    score = metrics.PROTOCOLS[protocol]
    low, high = metrics.miou_interval(*good, protocol, draws=200)
    assert low < score(*good).mean < high and high - low < 0.1
    assert metrics.miou_interval(*good, protocol, draws=200) == (low, high), "seeded"
    assert metrics.paired_interval(good, good, protocol, draws=50) == (0, 0)
    low, high = metrics.paired_interval(good, bad, protocol, draws=200)
    assert 0 < low < score(*good).mean - score(*bad).mean < high


@pytest.mark.parametrize("protocol", metrics.PROTOCOLS)
@pytest.mark.parametrize("shown", [40, 1, 0], ids=["all classes", "a rare class", "a missing one"])
def test_draws_score_what_the_drawn_images_score(noisy, protocol, shown):
    (intersection, union), _ = noisy
    kept = np.ones_like(union)
    kept[shown:, 3] = 0  # the last class occurs in the first images alone
    pair = intersection * kept, union * kept
    found = metrics.resampled_means([pair], protocol, 50, seed=4)[0]
    rows = np.random.default_rng(4).integers(0, 40, (50, 40))
    score = metrics.PROTOCOLS[protocol]
    np.testing.assert_allclose(found, [score(pair[0][r], pair[1][r]).mean for r in rows])


def test_errors(unchecked):
    two, other = masks("01 10"), masks("011 100")
    with pytest.raises(InputError, match=r"\(1, 2, 2\).*\(1, 2, 3\); wanted equal shapes"):
        miou_dataset(two, other, 2)
    for predicted, target in [(two + 1, two), (two, two + 1)]:
        with pytest.raises(InputError, match="class id 2; wanted ids below 2"):
            miou_per_image(predicted, target, 2)


def test_summary_is_json_in_percent():
    counts = PixelCounts(3)
    counts.add(masks("2222", "0002"), masks("2222", "0000"))
    found = metrics.summary(counts, ["bg", "skin", "hair"])
    assert found["images"] == 2 and found["pixel_accuracy"] == 87.5
    assert found["miou_per_image"]["mean"] == 50 and found["miou_dataset"]["mean"] == 80
    assert found["miou_dataset"]["per_class"] == {"bg": 75, "skin": None, "hair": 80}
    assert found["miou_dataset"]["low"] <= 80 <= found["miou_dataset"]["high"]


def test_summary_of_nothing_but_background():
    counts = PixelCounts(2)
    counts.add(masks("00"), masks("00"))
    found = metrics.summary(counts, ["bg", "hair"])["miou_dataset"]
    assert [found[key] for key in ("mean", "low", "high")] == [None] * 3
