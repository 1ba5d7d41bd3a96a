from pathlib import Path

import numpy as np
import pytest
import torch
import toys

from pipeline.generators.dcgan import from_torch_names
from pipeline.generators.latents import sample_z
from pipeline.generators.layers import conv_taps
from pipeline.generators.mobile_stylegan import inverse_haar
from pipeline.generators.registry import FAMILIES, load_generator
from pipeline.generators.taps import edit, record
from pipeline.runtime.errors import InputError
from pipeline.runtime.weights import read_safetensors, write_safetensors

# The first tap that a row of ws reaches (None: only the image), by the forward order of the rows.
FIRST_TAP = {
    "dcgan": ["block0"],
    "mobile_stylegan": [
        "4px",
        "8px_conv1",  # up
        "8px_conv1",
        "8px_conv2",
        "16px_conv1",  # up
        "16px_conv1",
        "16px_conv2",
        None,  # to_img
    ],
    "pggan": ["4px_conv1"],
    "stylegan": [f"{r}px_conv{k}" for r in (4, 8, 16, 32) for k in (1, 2)],
    "stylegan2": [
        "4px_conv2",
        "8px_conv1",  # and the ToRGB at 4 px
        "8px_conv2",
        "16px_conv1",
        "16px_conv2",
        "32px_conv1",
        "32px_conv2",
        None,  # the last ToRGB
    ],
}
HAS_NOISE = {
    "dcgan": False,
    "mobile_stylegan": True,
    "pggan": False,
    "stylegan": True,
    "stylegan2": True,
}


@pytest.fixture(params=sorted(FAMILIES))
def family(request):
    return request.param


@pytest.fixture
def generator(family, checkpoints):
    return load_generator(checkpoints[family])


def z_of(generator, num=3):
    return torch.from_numpy(sample_z(range(num), generator.z_dim))


def forward(generator, ws, **options):
    with torch.inference_mode(), record(generator, generator.taps) as features:
        images = generator.synthesis(ws, **options)
    return features, images


def test_the_wavelets_backward_pass_is_its_transpose():
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for layout in (torch.contiguous_format, torch.channels_last):
        maps = x.to(memory_format=layout).requires_grad_()
        assert torch.autograd.gradcheck(inverse_haar, maps)


def test_taps_describe_a_real_forward_pass(generator):
    features, images = forward(generator, generator.mapping(z_of(generator, 2)))
    assert list(features) == [tap.name for tap in generator.taps], "order of the forward pass"
    shapes = [(2, tap.channels, tap.resolution, tap.resolution) for tap in generator.taps]
    assert [tuple(x.shape) for x in features.values()] == shapes
    assert images.shape == (2, 3, generator.resolution, generator.resolution)
    assert images.dtype == torch.float32


def test_mapping_shape_and_rows(generator):
    ws = generator.mapping(z_of(generator))
    assert ws.shape == (3, generator.num_ws, generator.w_dim)
    assert torch.equal(ws, ws[:, :1].expand_as(ws)), "one w for all layers"
    assert not torch.equal(ws[0], ws[1])


def test_truncation(generator):
    z = z_of(generator)
    full, w_avg = generator.mapping(z), generator.w_avg
    torch.testing.assert_close(generator.mapping(z, 0.0), w_avg.expand_as(full))
    half = generator.mapping(z, 0.5)
    torch.testing.assert_close(half, w_avg + 0.5 * (full - w_avg))


@pytest.mark.parametrize("family", ["mobile_stylegan", "stylegan", "stylegan2"])
def test_truncation_cutoff_leaves_later_layers(checkpoints, family):
    generator = load_generator(checkpoints[family])
    z = z_of(generator)
    full, cut = generator.mapping(z), generator.mapping(z, 0.0, truncation_cutoff=3)
    torch.testing.assert_close(cut[:, :3], generator.w_avg.expand_as(cut[:, :3]))
    assert torch.equal(cut[:, 3:], full[:, 3:])


def test_every_row_of_ws_reaches_its_own_layer(generator, family):
    ws = generator.mapping(z_of(generator, 1))
    before, image = forward(generator, ws)
    names = list(before)
    assert len(FIRST_TAP[family]) == generator.num_ws
    for row, first in enumerate(FIRST_TAP[family]):
        changed = ws.clone()
        changed[:, row] += 1
        after, other = forward(generator, changed)
        same = [name for name in names if torch.equal(before[name], after[name])]
        assert same == (names if first is None else names[: names.index(first)]), f"row {row}"
        assert not torch.equal(image, other), f"row {row}"


def test_stop_at_ends_after_the_tap(generator):
    ws = generator.mapping(z_of(generator, 2))
    full, _ = forward(generator, ws)
    for index, tap in enumerate(generator.taps):
        for stop in (tap, tap.name):
            features, images = forward(generator, ws, stop_at=stop)
            assert images is None
            assert list(features) == list(full)[: index + 1], "nothing after the tap is computed"
            assert all(torch.equal(x, full[name]) for name, x in features.items())


def test_noise_mode(generator, family):
    ws = generator.mapping(z_of(generator, 1))
    (with_noise, image), (without, plain) = (
        forward(generator, ws, noise_mode=mode) for mode in ("const", "none")
    )
    for name, x in with_noise.items():
        assert torch.equal(x, without[name]) is not HAS_NOISE[family], name
    assert torch.equal(image, plain) is not HAS_NOISE[family]


def test_random_noise(generator, family):
    ws = generator.mapping(z_of(generator, 1)).repeat(2, 1, 1)
    torch.manual_seed(0)
    first, images = forward(generator, ws, noise_mode="random")
    torch.manual_seed(0)
    again, _ = forward(generator, ws, noise_mode="random")
    _, fixed = forward(generator, ws)
    for name, x in first.items():
        assert torch.equal(x, again[name]), "torch's seed decides"
        alike = torch.allclose(x[0], x[1], rtol=1e-4, atol=1e-5)
        assert alike is not HAS_NOISE[family], "every sample has its own"
    assert torch.equal(images, fixed) is not HAS_NOISE[family]


def test_noise_none_equals_noise_maps_of_zero(checkpoints):
    generator = load_generator(checkpoints["mobile_stylegan"])
    ws = generator.mapping(z_of(generator, 1))
    _, without = forward(generator, ws, noise_mode="none")
    for name, buffer in generator.named_buffers():
        if name.endswith("noise"):
            buffer.zero_()
    _, zeroed = forward(generator, ws)
    torch.testing.assert_close(without, zeroed)


def test_noise_is_added_where_the_bias_is(checkpoints):
    shifted = []
    for name in ("noise", "conv.bias"):
        generator = load_generator(checkpoints["mobile_stylegan"])
        generator.state_dict()[f"layers.1.conv1.{name}"].add_(0.3)
        shifted.append(forward(generator, generator.mapping(z_of(generator, 1)))[1])
    torch.testing.assert_close(*shifted)


def test_edits_reach_the_image_and_end_with_the_block(generator):
    ws, tap = generator.mapping(z_of(generator, 1)), generator.taps[1]
    _, before = forward(generator, ws)
    with edit(generator, {tap: lambda x: x * 0}):
        features, edited = forward(generator, ws)
    assert not torch.equal(before, edited)
    _, after = forward(generator, ws)
    assert torch.equal(before, after), "the hook outlived its block"
    assert features[tap.name].abs().max() == 0, "a record inside an edit sees the edited map"


def test_weights_are_frozen_but_latents_get_gradients(generator):
    assert not any(p.requires_grad for p in generator.parameters())
    assert not generator.training
    ws = generator.mapping(z_of(generator, 1)).requires_grad_()
    generator.synthesis(ws).square().sum().backward()
    assert ws.grad.abs().amax((0, 2)).min() > 0, "every row of ws gets a gradient"
    assert all(p.grad is None for p in generator.parameters())


def test_a_batch_equals_its_samples_one_by_one(generator):
    ws = generator.mapping(z_of(generator))
    together, images = forward(generator, ws)
    for i in range(3):
        alone, image = forward(generator, ws[i : i + 1])
        pairs = [(images, image), *((together[name], x) for name, x in alone.items())]
        for many, one in pairs:
            worst = (many[i] - one[0]).abs().max()
            assert float(worst / one.abs().max()) < 1e-5, "other samples leaked in"


@pytest.mark.parametrize("num", [1, 3])
def test_bfloat16_synthesis_is_within_a_few_percent(family, checkpoints, generator, num):
    low = load_generator(checkpoints[family], dtype="bfloat16")
    z = z_of(generator, num)
    ws = generator.mapping(z)
    assert torch.equal(low.mapping(z), ws), "the mapping stays float32"
    (exact, image), (rough, drawn) = forward(generator, ws), forward(low, ws)
    assert drawn.dtype == torch.float32
    pairs = [(image, drawn), *((x, rough[name]) for name, x in exact.items())]
    errors = [float((a - b.float()).norm() / a.norm()) for a, b in pairs]
    assert 0 < max(errors) < 0.03
    assert all(x.dtype == torch.bfloat16 for x in rough.values())


def test_loading_repeats_the_network_that_was_saved(family, generator):
    saved = toys.toy_network(family)
    ws = saved.mapping(z_of(saved))
    torch.testing.assert_close(generator.mapping(z_of(saved)), ws)
    torch.testing.assert_close(generator.synthesis(ws), saved.synthesis(ws))


@pytest.mark.parametrize("rows, width", [(1, 0), (0, 1)], ids=["one row more", "one wider"])
def test_wrong_ws_is_refused(generator, rows, width):
    ws = torch.zeros(2, generator.num_ws + rows, generator.w_dim + width)
    with pytest.raises(InputError, match=rf"wanted \[N, {generator.num_ws}, {generator.w_dim}\]"):
        generator.synthesis(ws)


def test_wrong_calls_name_the_choices(generator):
    ws = generator.mapping(z_of(generator, 1))
    with pytest.raises(InputError, match="z of width"):
        generator.mapping(torch.zeros(1, generator.z_dim + 1))
    with pytest.raises(InputError, match="noise_mode 'fresh'; wanted one of const, random, none"):
        generator.synthesis(ws, noise_mode="fresh")
    with pytest.raises(InputError, match=r"tap 'x'.*" + ", ".join(t.name for t in generator.taps)):
        generator.synthesis(ws, stop_at="x")


def test_wrong_files_are_refused(tmp_path, family, checkpoints):
    tensors, facts = read_safetensors(checkpoints[family])
    path = tmp_path / "x.safetensors"
    with pytest.raises(InputError, match=f"wanted one of {', '.join(FAMILIES)}"):
        load_generator(checkpoints[family], family="biggan")
    with pytest.raises(InputError, match="dtype 'float8'; wanted one of float32, bfloat16"):
        load_generator(checkpoints[family], dtype="float8")
    write_safetensors(path, tensors, {})
    with pytest.raises(InputError, match="a network of unknown names"):
        load_generator(path)
    assert load_generator(path, family=family).family == family
    for name in tensors:  # the error is ours, whichever tensor is gone
        write_safetensors(path, {k: v for k, v in tensors.items() if k != name}, facts)
        with pytest.raises(InputError):
            load_generator(path)
    write_safetensors(path, tensors | {"extra": torch.zeros(1)}, facts)
    with pytest.raises(InputError, match="extra"):
        load_generator(path)
    other = next(path for name, path in checkpoints.items() if name != family)
    with pytest.raises(InputError):
        load_generator(other, family=family)


def test_inverse_haar_by_its_definition():
    x = torch.randn(2, 12, 3, 5, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(2, 3, 6, 10)
    for c in range(3):
        low, vertical, horizontal, diagonal = x[:, c], *x[:, 3 + 3 * c : 6 + 3 * c].unbind(1)
        for p, sign_p in enumerate((1, -1)):
            for q, sign_q in enumerate((1, -1)):
                mix = sign_p * vertical + sign_q * horizontal + sign_p * sign_q * diagonal
                expected[:, c, p::2, q::2] = (low + mix) / 2
    torch.testing.assert_close(inverse_haar(x) / 2, expected)


def test_inverse_haar_keeps_energy():
    x = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close((inverse_haar(x) / 2).square().sum(), x.square().sum())


def test_dcgan_names_of_the_tutorial_are_translated(checkpoints):
    tensors, _ = read_safetensors(checkpoints["dcgan"])
    parts = ("weight", "bias", "running_mean", "running_var")
    names = {"main.12.weight": "to_rgb.weight"}
    for level in range(4):
        names[f"main.{3 * level}.weight"] = f"blocks.{level}.0.weight"
        names |= {f"main.{3 * level + 1}.{p}": f"blocks.{level}.1.{p}" for p in parts}
    published = {old: tensors[new] for old, new in names.items()}
    read = from_torch_names(published | {"main.1.num_batches_tracked": torch.tensor(1)})
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    with pytest.raises(InputError, match=r"without main\.4\.running_var"):
        from_torch_names({k: v for k, v in published.items() if k != "main.4.running_var"})


@pytest.mark.parametrize(
    "base, resolution, first, count, channels",
    [
        pytest.param(32768, 1024, 2, 17, 5568, id="stylegan2, 1024 px"),
        pytest.param(32768, 512, 2, 15, 5504, id="stylegan2, 512 px"),
        pytest.param(32768, 256, 2, 13, 5376, id="stylegan2, 256 px"),
        pytest.param(32768, 64, 2, 9, 4608, id="stylegan2, 64 px"),
        pytest.param(16384, 1024, 1, 18, 5088, id="stylegan and pggan, 1024 px"),
        pytest.param(16384, 256, 1, 14, 4992, id="stylegan and pggan, 256 px"),
    ],
)
def test_taps_of_published_widths(base, resolution, first, count, channels):
    """The counts and sums of channels that the paper's features have."""
    levels = resolution.bit_length() - 2
    taps = conv_taps([min(base // 4 // 2**level, 512) for level in range(levels)], first)
    assert (len(taps), sum(tap.channels for tap in taps)) == (count, channels)
    assert taps[-1].resolution == resolution
    if first == 1:
        second = [tap.channels for tap in taps if tap.name.endswith("_conv2")]
        assert (len(second), sum(second)) == (count // 2, channels // 2)


@pytest.mark.parametrize("family", ["pggan", "stylegan", "stylegan2"])
def test_style_weights_are_what_latents_act_through(checkpoints, family):
    generator = load_generator(checkpoints[family])
    weights = generator.style_weights
    assert all(w.dtype == torch.float32 and w.shape[1] == generator.w_dim for w in weights.values())
    names = [tap.name for tap in generator.taps]
    assert list(weights) == (names[:1] if family == "pggan" else names), "in forward order"
    ws = generator.mapping(z_of(generator, 1))
    before, _ = forward(generator, ws)
    name = list(weights)[-1]
    row = names.index(name)
    # A step in the null space of the last layer's matrix changes nothing there; another one does.
    *_, directions = torch.linalg.svd(weights[name])
    for direction, changes in ((directions[-1], family == "pggan"), (directions[0], True)):
        moved = ws.clone()
        moved[:, row] += direction
        after, _ = forward(generator, moved)
        assert torch.allclose(after[name], before[name], atol=1e-5) is not changes


@pytest.mark.real
def test_published_dcgan(published):
    generator = load_generator(published("digiface"))
    assert (generator.resolution, generator.z_dim, generator.num_ws) == (64, 100, 1)
    assert [(t.channels, t.resolution) for t in generator.taps] == [
        (512, 4),
        (256, 8),
        (128, 16),
        (64, 32),
    ]
    _, images = forward(generator, generator.mapping(z_of(generator, 8)))
    assert images.isfinite().all() and images.abs().max() <= 1
    assert images.std() > 0.2, "a picture, not a constant"
    # Faces lie in the middle: the corners of different samples differ less than the centers.
    mean = images.mean((0, 1))
    assert mean[24:40, 24:40].mean() != pytest.approx(float(mean[:8].mean()), abs=0.05)


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parent / "data" / "mobile_stylegan_ffhq.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


@pytest.fixture(scope="module")
def ffhq(published, golden):
    """The published FFHQ generator, its features and its images of the golden file's w."""
    generator = load_generator(published("ffhq"))
    ws = golden["w"][:, None].repeat(1, generator.num_ws, 1)
    return generator, *forward(generator, ws)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.real
def test_published_mapping_gives_the_golden_w(ffhq, golden):
    generator = ffhq[0]
    w = generator.mapping(golden["z"])[:, 0]
    assert float((w - golden["w"]).abs().max()) <= 1e-5
    # w_avg is no part of the file: it must lie closer to a w than any other w does.
    near, apart = (golden["w"] - generator.w_avg).norm(dim=1), (w[0] - w[1]).norm()
    assert near.max() < apart


@pytest.mark.real
def test_published_taps_have_the_golden_statistics(ffhq, golden):
    generator, features, _ = ffhq
    assert len(generator.taps) == sum(name.endswith("_shape") for name in golden)
    for index, tap in enumerate(generator.taps):
        x, key = features[tap.name], f"tap{index:02d}"
        assert tuple(golden[f"{key}_shape"]) == (tap.channels, tap.resolution, tap.resolution)
        assert relative(x.mean((2, 3)), golden[f"{key}_channel_mean"]) <= 1e-3, tap.name
        std = x.std((2, 3))  # the file divides by H W - 1
        assert relative(std, golden[f"{key}_channel_std"]) <= 1e-3, tap.name
        row = x[:, :8, tap.resolution // 2]
        assert relative(row, golden[f"{key}_row_mid"]) <= 1e-3, tap.name


@pytest.mark.real
def test_published_images_are_the_golden_ones(ffhq, golden):
    images = ffhq[2]
    assert images.shape == (2, 3, 1024, 1024)
    crop = images[:, :, 480:544, 480:544]
    assert relative(crop, golden["image_crop_480_544"]) <= 1e-3
    small = torch.nn.functional.avg_pool2d(images, 16)
    assert relative(small, golden["image_64_area"]) <= 1e-3
