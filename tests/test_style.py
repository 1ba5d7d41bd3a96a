"""Contributions, queries and restyling: the closed forms, and what a real generator does."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_clustering import golden_maps
from test_generators import FIRST_TAP
from test_golden_generators import FILES, load

from pipeline.editing.style.contributions import (
    Contributions,
    interpolate,
    normalize,
    query_sequential,
    query_simultaneous,
    resample,
    restyled,
)
from pipeline.editing.style.method import Transfer, queries
from pipeline.editing.style.poisson import poisson_blend
from pipeline.generators.latents import sample_z
from pipeline.generators.registry import FAMILIES, load_generator
from pipeline.generators.taps import record
from pipeline.metrics import color
from pipeline.runtime.errors import InputError

GOLDEN = json.loads((Path(__file__).parent / "data" / "editing_in_style.json").read_text())

WITHOUT_STYLES = {"dcgan", "pggan"}
WITH_BIASES = {"stylegan"}  # families whose styles hold scales, then biases
NETWORKS = sorted(FAMILIES.keys() - WITHOUT_STYLES)  # toys, and networks of other projects
NETWORKS += [n for n in FILES if n.startswith("stylegan") and "state dict" not in n]
# The first tap that a style reaches (None: only the image), in the styles' order.
FIRST = FIRST_TAP | {  # all but StyleGAN2 have a style a row of ws
    "stylegan2": [
        *("4px_conv2", None),  # of the ToRGB
        *("8px_conv1", "8px_conv2", None),
        *("16px_conv1", "16px_conv2", None),
        *("32px_conv1", "32px_conv2", None),
        *("64px_conv1", "64px_conv2", None),  # GenForce's
    ]
}


@pytest.fixture(params=NETWORKS)
def generator(request, checkpoints, tmp_path):
    if request.param in FAMILIES:
        return load_generator(checkpoints[request.param])
    return load(tmp_path, *FILES[request.param])


def ws_of(generator, num=2):
    return generator.mapping(torch.from_numpy(sample_z(range(num), generator.z_dim)))


def look(generator, ws):
    """The image, taps and styles of one pass."""
    with (
        torch.inference_mode(),
        record(generator, generator.taps) as features,
        record(generator, generator.styles) as scales,
    ):
        return generator.synthesis(ws), features, scales


def everywhere(generator, q):
    return {style.name: np.full(style.channels, q) for style in generator.styles}


# Colors


@pytest.mark.parametrize("name", GOLDEN["cielab"])
def test_cielab(name):
    known = GOLDEN["cielab"][name]
    rgb = np.array(known["rgb"], float).reshape(1, 3, 1, 1)
    np.testing.assert_allclose(color.lab_of(rgb).ravel(), known["correct"], atol=0.02)


def test_squared_error_in_cielab():
    known = GOLDEN["cielab_sqerr"]
    a, b = (np.array(known[name]).reshape(1, 3, 1, 1) for name in "ab")
    error = ((color.lab_of(a) - color.lab_of(b)) ** 2).sum()
    assert error == pytest.approx(known["correct_deltaE2"], rel=1e-3)
    rounded = [np.rint(255 * x).astype(np.uint8) for x in (a, b)]
    assert color.squared_error(*rounded).item() == pytest.approx(error, rel=0.03)


# Contributions


def golden_membership():
    n, h, w = np.meshgrid(*map(np.arange, (2, 4, 4)), indexing="ij")
    label = (n + h // 2 + 2 * (w // 2)) % 3
    return torch.from_numpy(np.stack([label == k for k in range(3)], 1).astype(float))


def measured(maps, membership, normalization="image", batch=2):
    found = Contributions(normalization)
    for start in range(0, len(maps), batch):
        found.add(maps[start : start + batch], membership[start : start + batch])
    return found.matrix


def raw_maps():
    """The golden maps before they are normalized."""
    n, c, h, w = np.meshgrid(*map(np.arange, (2, 6, 4, 4)), indexing="ij")
    angle = 1 + 0.7 * n + 1.3 * c + 0.9 * h * w + 0.31 * h * (c + 1) + 0.17 * w * (c + 2)
    return torch.from_numpy(np.sin(angle))


def test_normalized_maps_have_the_published_values():
    found = normalize(raw_maps())
    np.testing.assert_allclose(found[0, 0, 0], GOLDEN["M"]["A_0_0_row0"], rtol=1e-12)
    np.testing.assert_allclose(found, golden_maps(), atol=1e-12)


@pytest.mark.parametrize("normalization, name", [("image", "M"), ("dataset", "M_dataset_norm")])
def test_contributions_have_the_published_values(normalization, name):
    found = measured(raw_maps(), golden_membership(), normalization)
    np.testing.assert_allclose(found, GOLDEN["M"][name], atol=1e-12)
    np.testing.assert_allclose(found.sum(0), 1)


@pytest.mark.parametrize(
    "how, known",
    [
        ("nearest", GOLDEN["M"]["M"]),
        ("bilinear", GOLDEN["M_resample"]["M8_bilinear"]),
        ("area", GOLDEN["M_resample"]["M8_bilinear"]),  # enlarges, so it is bilinear
    ],
)
def test_memberships_are_resampled_as_published(how, known):
    maps = torch.nn.functional.interpolate(raw_maps(), (8, 8))
    found = measured(maps, resample(golden_membership(), 8, how))
    np.testing.assert_allclose(found, known, atol=1e-12)
    small = resample(golden_membership(), 2, how)[0]
    np.testing.assert_array_equal(small, GOLDEN["M_resample"]["U2_bilinear_n0"])


@pytest.mark.parametrize("how", ["bilinear", "nearest", "area"])
@pytest.mark.parametrize("size", [3, 7, 16])
def test_resampled_memberships_sum_to_one(how, size):
    found = resample(golden_membership(), size, how)
    torch.testing.assert_close(found.sum(1), torch.ones(2, size, size, dtype=torch.float64))


@pytest.mark.parametrize("normalization", ["image", "dataset"])
def test_order_and_batches_do_not_matter(normalization):
    rng = torch.Generator().manual_seed(0)
    maps = 5 + 3 * torch.randn(6, 4, 8, 8, generator=rng)
    membership = torch.rand(6, 3, 8, 8, generator=rng).softmax(1)
    known = measured(maps, membership, normalization, batch=6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    for batch in (1, 4):
        found = measured(maps[order], membership[order], normalization, batch)
        np.testing.assert_allclose(found, known, atol=1e-6)
    np.testing.assert_allclose(known.sum(0), 1, atol=1e-6)


def test_a_planted_channel_belongs_to_its_region():
    """A channel that varies in one region alone has nearly all of its M there."""
    rng = torch.Generator().manual_seed(1)
    membership = torch.zeros(8, 2, 16, 16)
    membership[:, 0, :, :8], membership[:, 1, :, 8:] = 1, 1
    maps = torch.randn(8, 2, 16, 16, generator=rng) * membership + 100
    assert measured(maps, membership) == pytest.approx(np.eye(2), abs=0.02)


@pytest.mark.parametrize("normalization", ["image", "dataset"])
def test_a_constant_channel_contributes_nothing_and_is_never_asked_for(normalization):
    maps = torch.cat([raw_maps(), torch.full((2, 1, 4, 4), 0.1)], 1).float()
    found = measured(maps, golden_membership(), normalization)
    np.testing.assert_array_equal(found[:, 6], 0)
    assert normalize(maps)[:, 6].abs().max() == 0
    assert query_sequential(found[0], 100.0)[6] == 0 == query_simultaneous(found[0], 100.0)[6]


def test_unknown_choices_are_named():
    with pytest.raises(InputError, match="one of image, dataset"):
        Contributions("layer")
    with pytest.raises(InputError, match="one of bilinear, nearest, area"):
        resample(golden_membership(), 8, "cubic")
    with pytest.raises(InputError, match="got no samples"):
        _ = Contributions().matrix


# Queries


@pytest.mark.parametrize("case", GOLDEN["query_sequential"]["cases"])
def test_sequential_queries(case):
    row = np.array(GOLDEN["query_sequential"]["M_merged"]["pq".index(case["label"])])
    found = query_sequential(row, case["eps"], case["rho_code"])
    np.testing.assert_array_equal(found, case["q"])


@pytest.mark.parametrize("strength", GOLDEN["query_simultaneous"])
def test_simultaneous_queries(strength):
    rows = np.array(GOLDEN["query_sequential"]["M_merged"])
    for row, known in zip(rows, GOLDEN["query_simultaneous"][strength], strict=True):
        np.testing.assert_allclose(query_simultaneous(row, float(strength)), known)


@pytest.mark.parametrize("name, with_bias", [("scale_only", False), ("with_bias", True)])
def test_interpolation(name, with_bias):
    """The published rows: scales, then biases."""
    known = GOLDEN["interp"]
    own, other = (torch.tensor(known[y]).view(1, -1) for y in ("y1", "y2"))
    found = interpolate(own, other, torch.tensor(known["q"]), with_bias)
    torch.testing.assert_close(found, torch.tensor(known[name]).view(1, -1))


def test_epsilon_counts_channels_of_512(generator):
    rows = {s.name: np.full(s.channels, 0.5) for s in generator.styles}
    found = queries("sequential", 256.0, generator.styles, rows)
    for style in generator.styles:  # each spends 1 - M = .5 of its channels / 2
        assert found[style.name].sum() == style.channels
    half = queries("sequential", 128.0, generator.styles, rows, coarse_share=0.0)
    for style in generator.styles:
        wanted = 0 if style.resolution <= 8 else style.channels // 2
        assert half[style.name].sum() == wanted, style.name


# What a generator does


def test_families_without_scales_have_no_styles(checkpoints):
    styles = {family: load_generator(checkpoints[family]).styles for family in FAMILIES}
    assert {family for family, found in styles.items() if not found} == WITHOUT_STYLES


def test_every_style_reaches_the_image(generator):
    ws = ws_of(generator)
    image, _, scales = look(generator, ws[:1])
    _, _, other = look(generator, ws[1:])
    names = [style.name for style in generator.styles]
    assert len(set(names)) == len(names) and not set(names) & {t.name for t in generator.taps}
    for style in generator.styles:
        width = style.channels * (2 if generator.family in WITH_BIASES else 1)
        assert scales[style.name].shape == (1, width, 1, 1)
        query = {style.name: np.ones(style.channels)}
        with torch.inference_mode(), restyled(generator, other, query):
            assert not torch.equal(generator.synthesis(ws[:1]), image), style.name
    assert torch.equal(look(generator, ws[:1])[0], image), "an edit outlived its block"


def test_no_query_is_the_image_and_all_of_it_the_reference(generator):
    ws = ws_of(generator)
    own, other = look(generator, ws[:1]), look(generator, ws[1:])
    for q, (known, features, _) in ((0.0, own), (1.0, other)):
        with restyled(generator, other[2], everywhere(generator, q), with_bias=True):
            image, found, _ = look(generator, ws[:1])
        assert torch.equal(image, known), f"q = {q}"
        assert all(torch.equal(found[name], x) for name, x in features.items())


def test_an_edit_leaves_earlier_taps_alone(generator):
    ws = ws_of(generator)
    _, before, _ = look(generator, ws[:1])
    _, _, other = look(generator, ws[1:])
    first = FIRST[generator.family][: len(generator.styles)]
    assert len(first) == len(generator.styles)
    for i, style in enumerate(generator.styles):
        for end in (i + 1, None):  # this one, and all from it on
            query = {s.name: np.ones(s.channels) for s in generator.styles[i:end]}
            with restyled(generator, other, query):
                _, after, _ = look(generator, ws[:1])
            changed = [name for name in after if not torch.equal(after[name], before[name])]
            known = next((name for name in first[i:end] if name), None)
            assert next(iter(changed), None) == known, style.name


@pytest.mark.parametrize("normalization", ["image", "dataset"])
def test_contributions_of_a_generator(generator, normalization):
    """They sum to 1 for every style and channel; the order of samples and batches do not matter."""
    rng = torch.Generator().manual_seed(0)
    ws, membership = ws_of(generator, 5), torch.rand(5, 3, 8, 8, generator=rng).softmax(1)

    def matrices(order, batch):
        sums = {style.name: Contributions(normalization) for style in generator.styles}
        for rows in torch.tensor(order).split(batch):
            _, features, scales = look(generator, ws[rows])
            for style in generator.styles:
                maps = generator.scaled_map(style, features, scales)
                assert maps.shape[1:] == (style.channels, *[style.resolution] * 2), style.name
                sums[style.name].add(maps, resample(membership[rows], style.resolution))
        return {name: found.matrix for name, found in sums.items()}

    known, found = matrices([0, 1, 2, 3, 4], 5), matrices([3, 0, 4, 2, 1], 2)
    for name, matrix in known.items():
        np.testing.assert_allclose(matrix.sum(0), 1, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(found[name], matrix, atol=1e-5, err_msg=name)


def test_mobile_stylegan_scales_what_convolutions_read(checkpoints):
    generator = load_generator(checkpoints["mobile_stylegan"])
    _, features, scales = look(generator, ws_of(generator))
    taps = {tap.module: tap for tap in generator.taps}
    read = 0
    for style in generator.styles:
        x = generator.scaled_map(style, features, scales)
        tap = taps.get(style.module.removesuffix(".modulation"))
        if tap is not None:
            conv = generator.get_submodule(tap.module)
            made = conv((x * scales[style.name]).contiguous(), None, "const")
            torch.testing.assert_close(made, features[tap.name])
            read += 1
    assert read == len(generator.taps)


def test_stylegan2_scales_what_layers_read(checkpoints):
    """Each layer makes its tap of the map that its style scales, and the ToRGBs the image."""
    generator = load_generator(checkpoints["stylegan2"])
    ws = ws_of(generator)
    ws = ws + torch.randn(ws.shape, generator=torch.Generator().manual_seed(0))  # rows differ
    known, features, scales = look(generator, ws)
    taps, row, image = {tap.module: tap.name for tap in generator.taps}, 0, None
    for style in generator.styles:
        module = style.module.removesuffix(".affine")
        layer, x = generator.get_submodule(module), generator.scaled_map(style, features, scales)
        if module in taps:
            made = layer(x, ws[:, row], "const")
            torch.testing.assert_close(made, features[taps[module]])
            row += 1
        else:
            image = layer(x, ws[:, row], image)
    torch.testing.assert_close(image, known)


def test_stylegan_scales_normed_maps(checkpoints):
    """Neither their style nor the choice of a normalization changes contributions."""
    generator = load_generator(checkpoints["stylegan"])
    rng = torch.Generator().manual_seed(0)
    _, features, scales = look(generator, ws_of(generator, 4))
    for style in generator.styles:
        x, tap = generator.scaled_map(style, features, scales), features[style.tap.name]
        scale, shift = scales[style.name].chunk(2, 1)
        torch.testing.assert_close(x * (scale + 1) + shift, tap)
        torch.testing.assert_close(normalize(x), x, atol=1e-4, rtol=0)
        u = torch.rand(4, 3, *tap.shape[2:], generator=rng).softmax(1)
        known = measured(tap, u, "image")
        for normalization in ("image", "dataset"):
            np.testing.assert_allclose(measured(x, u, normalization), known, atol=1e-5)
        assert np.abs(measured(tap, u, "dataset") - known).max() > 1e-3, "the tap's own differ"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_factor_of_zero_leaves_no_map(checkpoints, dtype):
    generator = load_generator(checkpoints["stylegan"])
    style = generator.styles[2]
    tap = torch.full((1, style.channels, 8, 8), 0.3, dtype=dtype)
    scales = torch.cat([torch.full_like(tap[..., :1, :1], -1), tap[..., :1, :1]], 1)
    found = generator.scaled_map(style, {style.tap.name: tap}, {style.name: scales})
    assert found.abs().max() == 0


# Transfers


def test_a_blend_of_everything_is_the_reference_up_to_there(generator):
    ws = ws_of(generator)
    size, taps = generator.resolution, generator.taps
    transfer = Transfer(generator, ws[:1], ws[1:], size, finest=16)
    _, other, _ = look(generator, ws[1:])
    seen = {}

    class Recording(Transfer):
        def _render(self, latents):
            with record(self.generator, taps) as features:
                image = super()._render(latents)
            seen.update(features)
            return image

    recording = Recording(generator, ws[:1], ws[1:], size, finest=16)
    region = np.ones((size, size), bool)
    with torch.no_grad():
        image = recording.blend_features(region, 8, 1.0)
    for tap in taps:
        same = torch.allclose(seen[tap.name], other[tap.name], atol=1e-5)
        assert same is (tap.resolution <= 8), tap.name
    assert not np.array_equal(image, transfer.own)
    np.testing.assert_array_equal(transfer.blend_features(~region, 16, 1.0), transfer.own)
    np.testing.assert_array_equal(transfer.blend_features(region, 16, 0.0), transfer.own)


def test_global_interpolation_ends_at_the_reference(generator):
    """But where styles hold biases, too: those stay the target's (eq 3)."""
    ws = ws_of(generator)
    transfer = Transfer(generator, ws[:1], ws[1:], 32)
    rows = everywhere(generator, 0.0)
    for strength, known in ((0.0, transfer.own), (1.0, transfer.other)):
        asked = queries("global", strength, generator.styles, rows)
        same = strength == 0 or generator.family not in WITH_BIASES
        assert np.array_equal(transfer.restyle(asked), known) is same


def picture(seed, size=12):
    return np.random.default_rng(seed).integers(60, 190, (3, size, size)).astype(np.uint8)


def region(rows, columns, size=12):
    found = np.zeros((size, size), bool)
    found[rows, columns] = True
    return found


@pytest.mark.parametrize(
    "where",
    [
        region(slice(3, 8), slice(4, 9)),  # inside
        region(slice(0, 5), slice(7, 12)),  # in a corner: some neighbors do not exist
        region(slice(0, 12), slice(0, 6)),  # half the image
        region([2, 9], [2, 9]),  # two pixels apart
    ],
    ids=["inside", "corner", "half", "apart"],
)
def test_poisson_keeps_the_outside_and_takes_gradients(where):
    own, other = picture(0), picture(1)
    found = poisson_blend(own, other, where)
    np.testing.assert_array_equal(found[:, ~where], own[:, ~where])
    shifted = poisson_blend(own, (own + 30).astype(np.uint8), where)
    assert np.abs(shifted.astype(int) - own).max() <= 1, "the same gradients give the same image"
    again = poisson_blend(own, other + 40, where)
    assert np.abs(again.astype(int) - found).max() <= 1, "a constant has no gradient"
    assert not np.array_equal(found, own)


def test_poisson_solves_its_equation():
    where = region(slice(2, 7), slice(3, 10))
    own, other = (100 + picture(seed) // 8 for seed in (2, 3))  # so gentle that nothing is clipped
    f, g = poisson_blend(own, other, where).astype(float), other.astype(float)
    assert f.min() > 0 and f.max() < 255

    def laplacian(x):
        return 4 * x - sum(np.roll(x, step, axis) for step in (1, -1) for axis in (1, 2))

    error = np.abs(laplacian(f) - laplacian(g))[:, where]
    assert error.max() <= 4, "eight halves of a level: rounding"
    assert np.abs(laplacian(own.astype(float)) - laplacian(g))[:, where].max() > 10


@pytest.mark.parametrize("value", [False, True])
def test_poisson_of_nothing_and_of_everything(value):
    own, other = picture(4), picture(5)
    found = poisson_blend(own, other, np.full((12, 12), value))
    np.testing.assert_array_equal(found, other if value else own)


@pytest.mark.real
def test_published_styles(published):
    """23 style matrices, whose maps have the taps' statistics."""
    generator = load_generator(published("ffhq"))
    assert len(generator.styles) == generator.num_ws == 23
    _, features, scales = look(generator, ws_of(generator, 1))
    for style in generator.styles:
        x = generator.scaled_map(style, features, scales)
        assert x.shape[1:] == (style.channels, style.resolution, style.resolution)
        assert scales[style.name].shape == (1, style.channels, 1, 1)
