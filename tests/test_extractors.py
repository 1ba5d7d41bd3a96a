import numpy as np
import pytest
import torch
import torch.nn.functional as F
import toys

from pipeline.extractors.networks import (
    KINDS,
    LSE,
    NSE1,
    NSE2,
    Window,
    build,
    load_extractor,
    save_extractor,
)
from pipeline.extractors.registry import EXTRACTORS, variant
from pipeline.generators.taps import Tap
from pipeline.runtime.errors import InputError
from pipeline.runtime.weights import write_safetensors

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


BUILDERS = {
    "lse": lambda align: fitted(True, align)[0],
    "nse1": lambda align: NSE1(toys.CLASSES, TAPS, 1, align),
    "nse1_3x3": lambda align: NSE1(toys.CLASSES, TAPS, 3, align),
    "nse2": lambda align: NSE2(toys.CLASSES, TAPS, None, align),
    "nse2 narrow": lambda align: NSE2(toys.CLASSES, TAPS, 3, align),
}


@pytest.fixture(params=BUILDERS)
def make(request):
    torch.manual_seed(0)
    return BUILDERS[request.param]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("side", [4, 8, 16])
def test_a_window_has_the_logits_of_the_whole_maps(features, make, align_corners, side):
    extractor = make(align_corners).requires_grad_(False)
    whole = extractor.logits(features, SIZE)
    for top in range(0, SIZE, side):
        for left in range(0, SIZE, side):
            window = Window(top, left, side)
            regions = extractor.regions(SIZE, window)
            parts = {name: x[..., *regions[name]] for name, x in features.items()}
            expected = whole[..., top : top + side, left : left + side]
            logits = extractor.logits(parts, SIZE, window)
            torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_a_small_window_needs_a_part_of_the_fine_maps(make):
    rows, columns = make(False).regions(SIZE, Window(4, 8, 4))["e"]
    assert rows.stop - rows.start < 32 and columns.stop - columns.start < 32
    assert rows.start <= 8 < 16 <= rows.stop and columns.start <= 16 < 24 <= columns.stop


def test_gradients_reach_every_parameter(features, make):
    extractor = make(False)
    masks = torch.arange(2 * SIZE * SIZE).view(2, SIZE, SIZE) % len(toys.CLASSES)
    F.cross_entropy(extractor.logits(features, SIZE), masks).backward()
    idle = [n for n, p in extractor.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle


def test_scales_of_the_inputs_are_absorbed(features, make):
    extractor = make(False).requires_grad_(False)
    scales = [torch.rand(t.channels) + 0.5 for t in TAPS]
    scaled = {
        t.name: features[t.name] * s[:, None, None] for t, s in zip(TAPS, scales, strict=True)
    }
    expected = extractor.logits(scaled, SIZE)
    extractor.absorb(scales)
    torch.testing.assert_close(extractor.logits(features, SIZE), expected, rtol=1e-4, atol=1e-5)


def test_every_kind_is_saved_and_loaded(tmp_path, features, make):
    extractor = make(True).requires_grad_(False)
    save_extractor(tmp_path / "x.safetensors", extractor, {"name": "x"})
    loaded = load_extractor(tmp_path / "x.safetensors")
    assert type(loaded) is type(extractor) and loaded.settings == extractor.settings
    assert (loaded.classes, loaded.taps, loaded.align_corners) == (toys.CLASSES, TAPS, True)
    assert torch.equal(loaded.logits(features, SIZE), extractor.logits(features, SIZE))
    assert not any(p.requires_grad for p in loaded.parameters())
    assert np.array_equal(loaded.predict(features, SIZE), extractor.predict(features, SIZE))


def test_rough_masks_are_nearly_those_of_float32(features, make):
    extractor = make(False).requires_grad_(False)
    exact = extractor.logits(features, SIZE).argmax(1).numpy()
    assert (extractor.predict(features, SIZE) == exact).mean() > 0.95


# StyleGAN2 at 256 px: 13 taps, 5,376 channels. The published LSE and NSE-1 have one weight a tap
# besides, 13 in all, which we fold: 91,392 + 13 and 2,032,482.
SIDES_256 = (4, *(side for side in (8, 16, 32, 64, 128, 256) for _ in range(2)))
STYLEGAN2_256 = tuple(
    Tap(f"layer{i}", f"layer{i}", min(32768 // side, 512), side) for i, side in enumerate(SIDES_256)
)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("lse", 91_392), ("nse1", 2_032_482 - 13), ("nse2", 43_824_273)],
)
def test_the_paper_sizes(name, parameters):
    assert sum(tap.channels for tap in STYLEGAN2_256) == 5376
    with torch.device("meta"):
        extractor = build(name, [str(i) for i in range(17)], STYLEGAN2_256, 0, False)
    assert sum(p.numel() for p in extractor.parameters()) == parameters


def test_names_say_what_is_built():
    kernels = {n: build(n, toys.CLASSES, TAPS, 3, True).settings for n in ("nse1", "nse1_3x3")}
    assert kernels == {"nse1": {"kernel": 1}, "nse1_3x3": {"kernel": 3}}
    assert build("nse2", toys.CLASSES, TAPS, 3, True).settings == {"width": 3}
    assert build("nse2", toys.CLASSES, TAPS, 0, True).settings == {"width": None}
    assert build("lse_biased", toys.CLASSES, TAPS, 0, True).bias is not None


def test_the_chain_wants_taps_from_coarse_to_fine():
    with pytest.raises(InputError, match="tap a of 4 px after 32 px; wanted resolutions that"):
        NSE2(toys.CLASSES, TAPS[::-1][:1] + TAPS[:1])


def test_a_missing_tap_is_named(features, make):
    extractor = make(False)
    del features["c"]
    with pytest.raises(InputError, match="features without tap c; wanted taps a, b, c, d, e"):
        extractor.predict(features, SIZE)


def test_other_files_are_refused(tmp_path):
    write_safetensors(tmp_path / "x", {"a": torch.zeros(1)}, {"family": "dcgan"})
    with pytest.raises(
        InputError, match="of type None; wanted an extractor of type LSE, NSE1, NSE2"
    ):
        load_extractor(tmp_path / "x")


def test_a_wrong_name_lists_all():
    assert variant("lse_biased").settings["bias"] and not variant("lse").settings
    with pytest.raises(InputError, match=f"extractor 'nse'; wanted one of {', '.join(EXTRACTORS)}"):
        variant("nse")
    assert {form.kind for form in EXTRACTORS.values()} == KINDS.keys()
