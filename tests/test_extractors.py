import numpy as np
import pytest
import torch
import torch.nn.functional as F
import toys

from pipeline.checkpoints import write_safetensors
from pipeline.errors import InputError
from pipeline.extractors import EXTRACTORS, LSE, load_extractor, save_extractor, variant
from pipeline.taps import Tap

# Two taps of one resolution, whose logits are added before they are upsampled; one as large as
# the mask and one larger.
SIDES = {"a": (5, 4), "b": (3, 8), "c": (4, 8), "d": (2, 16), "e": (3, 32)}
TAPS = tuple(Tap(name, name, channels, side) for name, (channels, side) in SIDES.items())
CHANNELS, SIZE = sum(tap.channels for tap in TAPS), 16


@pytest.fixture
def features():
    rng = torch.Generator().manual_seed(0)
    return {
        t.name: torch.randn(2, t.channels, t.resolution, t.resolution, generator=rng) for t in TAPS
    }


def fitted(bias: bool, align_corners: bool) -> tuple[LSE, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    matrix = torch.randn(CHANNELS, len(toys.CLASSES), generator=rng)
    extractor = LSE(toys.CLASSES, TAPS, bias, align_corners)
    extractor.set_matrix(matrix)
    if bias:
        extractor.bias.data = torch.randn(len(toys.CLASSES), generator=rng)
    return extractor, matrix


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_logits_are_one_matrix_times_all_upsampled_taps(features, bias, align_corners):
    extractor, matrix = fitted(bias, align_corners)
    columns = torch.cat(
        [
            F.interpolate(
                features[t.name], (SIZE, SIZE), mode="bilinear", align_corners=align_corners
            )
            for t in TAPS
        ],
        1,
    )
    expected = torch.einsum("nchw,ck->nkhw", columns, matrix)
    if bias:
        expected += extractor.bias[:, None, None]
    logits = extractor.logits(features, SIZE)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    masks = extractor.predict(features, SIZE)
    assert masks.dtype == np.uint8
    np.testing.assert_array_equal(masks, expected.argmax(1).numpy())


def test_more_features_than_taps_are_fine_and_low_precision_is_cast(features):
    extractor = fitted(False, False)[0].requires_grad_(False)
    exact = extractor.logits(features, SIZE)
    rough = {name: x.bfloat16() for name, x in features.items()} | {"extra": torch.zeros(1)}
    logits = extractor.logits(rough, SIZE)
    assert logits.dtype == torch.float32
    assert float((logits - exact).norm() / exact.norm()) < 0.01


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_saved_and_loaded(tmp_path, features, bias):
    extractor, _ = fitted(bias, True)
    save_extractor(tmp_path / "x.safetensors", extractor, {"name": "lse"})
    loaded = load_extractor(tmp_path / "x.safetensors")
    assert (loaded.classes, loaded.taps, loaded.align_corners) == (toys.CLASSES, TAPS, True)
    assert torch.equal(loaded.logits(features, SIZE), extractor.logits(features, SIZE))
    assert not any(p.requires_grad for p in loaded.parameters())


def test_a_missing_tap_is_named(features):
    extractor, _ = fitted(False, False)
    del features["c"]
    with pytest.raises(InputError, match="features without tap c; wanted taps a, b, c, d, e"):
        extractor.predict(features, SIZE)


def test_other_files_are_refused(tmp_path):
    write_safetensors(tmp_path / "x", {"a": torch.zeros(1)}, {"family": "dcgan"})
    with pytest.raises(InputError, match="of type None; wanted an LSE"):
        load_extractor(tmp_path / "x")


def test_a_wrong_name_lists_all():
    assert variant("lse_biased").bias and not variant("lse").bias
    with pytest.raises(InputError, match=f"extractor 'nse'; wanted one of {', '.join(EXTRACTORS)}"):
        variant("nse")
