"""An edited photograph: the edit in its region, the photo bit for bit elsewhere."""

import numpy as np
import pytest

from pipeline.editing.semantic.composition import compose, feathered
from pipeline.runtime.errors import InputError

SIZE = 96
MIDDLE = np.zeros((24, 24), bool)
MIDDLE[9:15, 9:15] = True  # px 36 to 60 of the photo


def flat(*color, size=SIZE):
    return np.array(color, np.uint8)[:, None, None].repeat(size, 1).repeat(size, 2)


def textured(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (3, SIZE, SIZE), np.uint8)


def far(pixels):
    """Pixels further than so many from the middle's square."""
    y, x = np.mgrid[:SIZE, :SIZE]
    out = [np.maximum(np.maximum(36 - at, at - 59), 0) for at in (y, x)]
    return np.hypot(*out) > pixels


def test_weights_are_1_on_the_grown_region_and_fall_to_0():
    weights = feathered(MIDDLE, SIZE, dilation=3, feather=10)
    assert (weights[~far(2)] == 1).all()
    assert (weights[far(14)] == 0).all()
    row = weights[48, 60:]
    assert (np.diff(row) <= 0).all() and 0.4 < row[7] < 0.6
    assert {*np.unique(feathered(MIDDLE, SIZE, 3, 0))} == {0, 1}


@pytest.mark.parametrize("size", [10, 24, 96, 100])
def test_a_region_of_any_size_is_found_again(size):
    weights = feathered(MIDDLE, size, 0, 0)
    assert weights.mean() == pytest.approx(MIDDLE.mean(), abs=2.5 / size)


def test_a_region_thinner_than_a_pixel_is_not_lost():
    line = np.zeros((64, 64), bool)
    line[31] = True
    assert feathered(line, 8, 0, 0).sum() == 8
    assert not feathered(np.zeros((64, 64), bool), 8, 5, 5).any()


def test_outside_the_photo_is_untouched_bit_for_bit():
    photo, before, after = textured(0), textured(1), textured(2)
    found = compose(photo, before, after, MIDDLE, dilation=3 / SIZE, feather=10 / SIZE)
    assert (found == photo)[:, far(14)].all()
    assert (found != photo)[:, ~far(2)].mean() > 0.9
    assert (compose(photo, before, after, MIDDLE & False) == photo).all()


def test_inside_is_the_edited_image_where_the_generator_shows_the_photo():
    photo = textured()
    after = photo.copy()
    after[:, ~far(2)] = 77
    assert (compose(photo, photo, after, MIDDLE)[:, ~far(0)] == 77).all()
    assert (compose(photo, photo, photo, MIDDLE) == photo).all()


def test_colors_are_corrected_by_how_far_the_image_is_from_the_photo_around_the_region():
    photo, before = flat(120, 90, 70), flat(112, 96, 60)  # a little too dark, too green, too pale
    after = before.copy()
    after[:, ~far(8)] = flat(40, 50, 60)[:, ~far(8)]
    found = compose(photo, before, after, MIDDLE)
    wanted = np.array([48, 44, 70])
    assert np.abs(found[:, ~far(0)].astype(int) - wanted[:, None]).max() <= 2


def test_what_differs_from_the_photo_inside_the_region_corrects_nothing():
    photo, before = flat(100, 100, 100), flat(100, 100, 100)
    photo[:, ~far(0)] = 0  # glasses that the generator did not find
    after = flat(100, 100, 100)
    found = compose(photo, before, after, MIDDLE, dilation=0.03, feather=0.03)
    assert np.abs(found[:, ~far(0)].astype(int) - 100).max() <= 2


def test_another_background_corrects_little():
    photo, before = flat(100, 100, 100), flat(100, 100, 100)
    photo[:, :, 66:] = 250  # the wall behind the head, which the generator has dark
    found = compose(photo, before, before, MIDDLE)
    assert np.abs(found[:, ~far(0)].astype(int) - 100).max() <= 15


def test_the_photo_sets_the_size():
    photo = flat(10, 20, 30, size=200)
    found = compose(photo, flat(10, 20, 30), flat(90, 20, 30), MIDDLE)
    assert found.shape == photo.shape and found.dtype == np.uint8
    assert (found[:, 100, 100] == (90, 20, 30)).all() and (found[:, :40] == photo[:, :40]).all()


@pytest.mark.parametrize(
    ("photo", "shares", "message"),
    [
        (flat(1, 2, 3)[:, :50], {}, "a photo of 96x50 px.*; wanted a square photo.*align_photo"),
        (flat(1, 2, 3), {"feather": -0.1}, "feather -0.1; wanted .*0 or more"),
    ],
)
def test_what_does_not_fit_gets_a_sentence(photo, shares, message):
    with pytest.raises(InputError, match=message):
        compose(photo, flat(1, 2, 3), flat(1, 2, 3), MIDDLE, **shares)
