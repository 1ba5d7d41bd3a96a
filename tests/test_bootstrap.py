"""The bootstrap: coverage on known distributions, NaN policy, pairing."""

import numpy as np
import pytest

from pipeline.metrics import bootstrap
from pipeline.metrics.iou import paired_interval


@pytest.mark.parametrize(
    ("draw", "mean"), [("normal", 0.0), ("uniform", 0.5), ("exponential", 1.0)]
)
def test_coverage_of_the_mean(draw, mean):
    """About 95 % of the intervals from 60 units contain the mean of the distribution."""
    samples = getattr(np.random.default_rng(0), draw)(size=(300, 60))
    intervals = [bootstrap.interval_of_mean(x, seed) for seed, x in enumerate(samples)]
    covered = np.mean([low <= mean <= high for low, high in intervals])
    assert 0.88 <= covered <= 0.99


def test_the_interval_of_any_statistic():
    values = np.random.default_rng(3).normal(size=50)
    found = bootstrap.interval(lambda rows: values[rows].mean(), 50, seed=4, draws=200)
    assert found == pytest.approx((values.mean(), *bootstrap.interval_of_mean(values, 4, 200)))
    value, low, high = bootstrap.interval(lambda rows: float(values[rows].mean()), 1)
    assert value == values[0] and np.isnan([low, high]).all(), "a single unit tells no spread"


def test_nan_draws_are_left_out():
    known = np.arange(101.0)
    assert bootstrap.percentiles(np.append(known, [np.nan] * 50)) == (2.5, 97.5)
    assert np.isnan(bootstrap.percentiles(np.full(3, np.nan))).all()


def test_the_same_draws_for_all_methods():
    """A constant gain has an interval of no width; counts and indices are the same draws."""
    values = np.random.default_rng(1).normal(size=40)
    assert bootstrap.interval_of_mean((values + 2) - values) == pytest.approx((2, 2))
    times, rows = bootstrap.times_drawn(40), bootstrap.resample(40)
    np.testing.assert_allclose(times @ values / 40, values[rows].mean(1))


def test_paired_miou_of_equal_masks_is_zero():
    rng = np.random.default_rng(2)
    union = rng.integers(1, 50, (20, 4))
    pair = rng.integers(0, union + 1), union
    assert paired_interval(pair, pair, "miou_per_image") == (0, 0)
