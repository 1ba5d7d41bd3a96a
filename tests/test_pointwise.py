"""1x1 convolutions as matrix products: the values and gradients of `conv2d`."""

import pytest
import torch
import torch.nn.functional as F

from pipeline.generators import pointwise as module
from pipeline.generators.pointwise import pointwise, product, to_map, to_pixels


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LAYOUTS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


@pytest.mark.parametrize("onednn", [True, False], ids=["oneDNN", "linear"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_values_and_gradients_are_those_of_a_convolution(layout, onednn, monkeypatch):
    monkeypatch.setattr(module, "HAS_ONEDNN", onednn and module.HAS_ONEDNN)
    x, weight = drawn(3, 7, 5, 4).to(memory_format=layout).requires_grad_(), drawn(6, 7, seed=1)
    other = x.detach().clone().requires_grad_()
    found, wanted = pointwise(x, weight), F.conv2d(other, weight[..., None, None])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    slope = drawn(*wanted.shape, seed=2)
    gradients = (torch.autograd.grad(y, v, slope)[0] for y, v in ((found, x), (wanted, other)))
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


NEEDED = {"all": (True, True, True), "the weight alone": (False, True, False)}


@pytest.mark.parametrize("needed", NEEDED.values(), ids=NEEDED)
def test_weights_and_bias_have_gradients_where_they_are_trained(needed):
    tensors = [drawn(9, 7), drawn(6, 7, seed=1), drawn(6, seed=2)]
    first, second = (
        [x.clone().requires_grad_(n) for x, n in zip(tensors, needed, strict=True)] for _ in "ab"
    )
    slope = drawn(9, 6, seed=3)
    (product(*first) * slope).sum().backward()
    (F.linear(*second) * slope).sum().backward()
    for one, other, n in zip(first, second, needed, strict=True):
        assert (one.grad is not None) == n
        if n:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-5)


def test_pixels_are_a_view_of_a_channels_last_map_and_back():
    x = drawn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    pixels = to_pixels(x)
    assert pixels.data_ptr() == x.data_ptr() and pixels.shape == (40, 3)
    back = to_map(pixels, x.shape)
    assert torch.equal(back, x) and back.is_contiguous(memory_format=torch.channels_last)
