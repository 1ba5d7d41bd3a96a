import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.data.images import to_float, to_uint8


def test_images_to_bytes_and_back():
    ramp = torch.linspace(-1, 1, 256).view(1, 1, 16, 16).repeat(1, 3, 1, 1)
    pixels = to_uint8(ramp, 16)
    np.testing.assert_array_equal(pixels[0, 0].ravel(), np.arange(256))
    torch.testing.assert_close(to_float(pixels), ramp)
    checks = torch.tensor([[-1.0, 1], [1, 1]]).repeat(1, 3, 4, 4)
    assert np.all(to_uint8(checks, 4) == 191), "the area's mean: 0.5"
    assert np.all(to_uint8(torch.full((1, 3, 2, 2), 3.0), 2) == 255), "clamped, not wrapped"


@pytest.mark.parametrize("size", [64, 16, 8, 4, 24])  # 24 does not divide 64
def test_whole_factors_give_the_bytes_of_area_averages(size):
    drawn = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    area = F.interpolate(drawn, (size, size), mode="area").clamp(-1, 1)
    wanted = area.add(1).mul(127.5).round().to(torch.uint8).numpy()
    np.testing.assert_array_equal(to_uint8(drawn, size), wanted)
