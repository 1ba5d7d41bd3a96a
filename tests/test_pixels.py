import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.data.pixels import boundary, draw_pixels, hypercolumns


@pytest.fixture
def mask():
    """Large, small and tiny classes; class 4 does not occur."""
    mask = np.zeros((16, 16), np.uint8)
    mask[3:9, 4:12] = 1
    mask[10:12, 10:13] = 2
    mask[15, 0] = 3
    return mask


def test_weighted_sums_are_unbiased(mask):
    values = np.random.default_rng(0).standard_normal((2, mask.size))
    values[1] = mask.ravel() == 3  # a single pixel of 256: the rarest thing there is
    estimates = np.array(
        [
            values[:, pixels.places] @ pixels.weights
            for pixels in (draw_pixels(mask, 32, seed, 5) for seed in range(2000))
        ]
    )
    error = estimates.std(0) / np.sqrt(len(estimates))
    assert np.all(np.abs(estimates.mean(0) - values.mean(1)) < 4 * error)
    assert np.all(error < 0.01), "else the line above shows nothing"


def test_weights_sum_to_one_on_average(mask):
    sums = [draw_pixels(mask, 64, seed, 5).weights.sum() for seed in range(200)]
    assert np.mean(sums) == pytest.approx(1, abs=0.01)
    assert np.std(sums) < 0.2


def test_every_class_gets_its_share(mask):
    counts = np.zeros(5)
    for seed in range(50):
        counts += np.bincount(draw_pixels(mask, 40, seed, 5).classes, minlength=5)
    shares = counts / counts.sum()
    assert shares[3] > 0.06, "one pixel of 256 is a thirteenth of the draws: a class's share"
    assert shares[2] > 0.06 and shares[4] == 0


def test_draws_are_places_of_their_classes(mask):
    pixels = draw_pixels(mask, 100, 0, 5)
    np.testing.assert_array_equal(pixels.classes, mask.ravel()[pixels.places])
    assert pixels.places.dtype == np.int32 and pixels.weights.dtype == np.float32
    again, other = draw_pixels(mask, 100, 0, 5), draw_pixels(mask, 100, 1, 5)
    np.testing.assert_array_equal(pixels.places, again.places)
    assert not np.array_equal(pixels.places, other.places)


def test_a_mask_of_one_class_is_drawn_evenly():
    mask = np.full((8, 8), 2, np.uint8)
    pixels = draw_pixels(mask, 64, 0, 3)
    np.testing.assert_array_equal(pixels.places, np.arange(64))
    np.testing.assert_allclose(pixels.weights, 1 / 64, rtol=1e-6)


def test_boundary_by_hand():
    mask = np.array([[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1], [0, 0, 0, 0]], np.uint8)
    expected = np.array([[0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]], bool)
    np.testing.assert_array_equal(boundary(mask), expected)
    assert not boundary(np.zeros((3, 3), np.uint8)).any()
    corner = np.array([[1, 0], [0, 0]], np.uint8)  # of four neighbors, so no diagonal
    np.testing.assert_array_equal(boundary(corner), [[True, True], [True, False]])


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("resolution", [2, 4, 8, 16, 32, 64], ids=lambda r: f"tap {r} px")
def test_hypercolumns_equal_interpolation_to_the_grid(resolution, align_corners):
    size, rng = 16, torch.Generator().manual_seed(resolution)
    features = [
        torch.randn(3, resolution, resolution, generator=rng),
        torch.randn(2, 4, 4, generator=rng),
    ]
    places = np.arange(size * size, dtype=np.int32)
    found = hypercolumns(features, places, size, align_corners)
    whole = [
        F.interpolate(f[None], (size, size), mode="bilinear", align_corners=align_corners)[0]
        for f in features
    ]
    expected = torch.cat(whole).flatten(1).T
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    some = np.array([200, 3, 3], np.int32)
    torch.testing.assert_close(hypercolumns(features, some, size, align_corners), found[some])


def test_hypercolumns_of_low_precision_are_interpolated_in_float32():
    feature = torch.tensor([[[1.0, 1.0078125], [1.0, 1.0078125]]]).bfloat16()  # neighbors in bf16
    found = hypercolumns([feature], np.arange(16, dtype=np.int32), 4, False)
    assert found.dtype == torch.float32
    assert len(found.unique()) == 4, "values between the two survive"
