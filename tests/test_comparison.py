from collections import Counter

import numpy as np
import pytest

from pipeline.analysis.comparison import against_best, confusion, confusion_rows, count
from pipeline.metrics.iou import miou_dataset, miou_per_image
from pipeline.runtime.errors import InputError


@pytest.fixture(scope="module")
def masks():
    """A target of four classes, and predictions that are wrong in 5, 20 and 40 % of the pixels."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, 4, (30, 16, 16)).astype(np.uint8)
    found = {}
    for name, wrong in {"lse": 0.2, "nse1": 0.05, "nse2": 0.4}.items():
        noise = rng.integers(0, 4, target.shape).astype(np.uint8)
        found[name] = np.where(rng.random(target.shape) < wrong, noise, target)
    return target, found


def test_differences_are_to_the_best_and_relative_as_in_table_1(masks):
    target, found = masks
    counts = count(found, target, 4)
    result = against_best(counts, ["nse1", "nse2"])
    for protocol, score in (("miou_per_image", miou_per_image), ("miou_dataset", miou_dataset)):
        means = {name: score(mask, target, 4).mean for name, mask in found.items()}
        assert result[protocol]["best"] == "nse1"
        row = result[protocol]["minus_best"]["lse"]
        assert row["points"] == pytest.approx(100 * (means["lse"] - means["nse1"]), abs=1e-3)
        assert row["relative"] == pytest.approx(100 * (means["lse"] / means["nse1"] - 1), abs=1e-3)
        assert row["points_low"] < row["points"] < row["points_high"] < 0
        same = result[protocol]["minus_best"]["nse1"]
        assert set(same.values()) == {0.0}, "an extractor does not differ from itself"


def test_an_extractor_without_predictions_is_said(masks):
    target, found = masks
    with pytest.raises(InputError, match="no predictions of nse3"):
        against_best(count(found, target, 4), ["nse3"])


def test_confusion_rows_have_the_shares_of_the_matrix():
    target = np.repeat([0, 0, 0, 1], 4).reshape(1, 4, 4).astype(np.uint8)
    predicted = target.copy()
    predicted[0, 0] = 1  # a third of class 0
    counts = count({"a": predicted}, target, 3)["a"]
    np.testing.assert_allclose(confusion(counts)[:2], [[2 / 3, 1 / 3, 0], [0, 1, 0]])
    assert np.isnan(confusion(counts)[2]).all(), "the third class never occurs"
    rows = Counter(confusion_rows(counts, ["x", "y", "z"], per_class=100))
    assert rows == {("x", "x"): 67, ("x", "y"): 33, ("y", "y"): 100}
