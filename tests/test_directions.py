"""Closed-form directions: SeFa, PCA, layer ranges, moves, distances with their chance level."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.editing.directions.method import (
    chance_distances,
    factorize,
    fit_boundary,
    layer_range,
    move,
    nearest,
    principal,
    project_out,
    random_directions,
    spread_of_w,
    to_positions,
    with_sign,
)
from pipeline.generators.latents import sample_z
from pipeline.generators.registry import FAMILIES, load_generator
from pipeline.generators.taps import record
from pipeline.runtime.errors import InputError

GOLDEN = json.loads((Path(__file__).parent / "data" / "directions.json").read_text())


def golden_weight() -> torch.Tensor:
    i, j = np.ogrid[:20, :6]
    return torch.from_numpy(np.cos(0.5 + 0.37 * i + 1.1 * j + 0.05 * i * j) * np.exp(-0.25 * j))


def test_sefa_is_the_published_one():
    found, wanted = factorize([golden_weight()]), GOLDEN["sefa"]
    np.testing.assert_allclose(found.eigenvalues, wanted["eigenvalues"], rtol=1e-10)
    np.testing.assert_allclose(found.vectors, wanted["vectors_columns"], atol=1e-9)
    assert found.eigenvalues.sum() == pytest.approx(20), "the trace is the number of rows"
    unnormalized = np.linalg.eigvalsh(golden_weight().numpy().T @ golden_weight().numpy())[::-1]
    np.testing.assert_allclose(unnormalized, wanted["eigenvalues_without_row_norm"], rtol=1e-9)


def test_a_gap_is_relative_to_its_eigenvalue():
    found = factorize([golden_weight()])
    values = found.eigenvalues
    assert found.gaps[0] == pytest.approx(1 - values[1] / values[0])
    assert found.gaps[-1] == 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 12), st.integers(2, 9))
def test_images_of_two_directions_under_a_are_orthogonal(seed, rows, columns):
    """Eq (9) of the paper, for weights stacked from two layers."""
    weights = [
        torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed + i))
        for i in range(2)
    ]
    found = factorize(weights)
    a = torch.cat(weights).double()
    images = (a / a.norm(dim=1, keepdim=True)).numpy() @ found.vectors.T
    np.testing.assert_allclose(images.T @ images, np.diag(found.eigenvalues), atol=1e-8)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(columns), atol=1e-9)
    assert found.eigenvalues.sum() == pytest.approx(2 * rows)
    assert (np.diff(found.eigenvalues) <= 1e-9).all()


def test_planted_directions_are_found_in_order():
    """Rows that point along three axes of a rotated basis: 6, 3 and 1 of them."""
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((5, 5)))[0]
    rows = [
        basis[:, axis] * scale for axis, n in ((2, 6), (0, 3), (4, 1)) for scale in range(1, n + 1)
    ]
    found = factorize([torch.from_numpy(np.stack(rows))])
    np.testing.assert_allclose(found.eigenvalues, [6, 3, 1, 0, 0], atol=1e-9)
    np.testing.assert_allclose(found.vectors[:3], with_sign(basis.T[[2, 0, 4]]), atol=1e-7)


def test_the_largest_entry_of_a_direction_is_positive():
    flipped = with_sign(np.array([[0.1, -0.9], [-0.2, 0.1], [0.0, 0.0]]))
    assert flipped.tolist() == [[-0.1, 0.9], [0.2, -0.1], [0.0, 0.0]]


@pytest.fixture(params=sorted(FAMILIES))
def generator(request, checkpoints):
    return load_generator(checkpoints[request.param])


def test_every_family_has_style_weights_in_forward_order(generator):
    weights, rows = generator.style_weights, generator.style_rows
    assert rows.keys() == weights.keys()
    assert all(w.dtype is torch.float32 and w.shape[1] == generator.w_dim for w in weights.values())
    order = list(rows.values())
    assert order == sorted(order) and order[0] >= 0 and order[-1] < generator.num_ws


def test_a_layer_sees_w_through_its_weight_alone(checkpoints):
    """What the weight maps to zero changes nothing; what it does not, does."""
    generator = load_generator(checkpoints["mobile_stylegan"])
    ws = generator.mapping(torch.from_numpy(sample_z([1], generator.z_dim)))
    image, tested = generator.synthesis(ws), 0
    for layer, weight in generator.style_weights.items():
        *_, rows = np.linalg.svd(weight.numpy())
        if len(weight) < generator.w_dim:  # the last right singular vector is in the null space
            moved = move(ws, rows[-1].astype(float), [generator.style_rows[layer]], [1.0])
            torch.testing.assert_close(generator.synthesis(moved), image, atol=1e-5, rtol=1e-4)
            tested += 1
        moved = move(ws, rows[0].astype(float), [generator.style_rows[layer]], [1.0])
        assert (generator.synthesis(moved) - image).abs().max() > 1e-4, layer
    assert tested >= 4


def test_the_first_layer_of_dcgan_is_its_matrix(checkpoints):
    generator = load_generator(checkpoints["dcgan"])
    z = torch.from_numpy(sample_z([1, 2], generator.z_dim))
    weight = generator.style_weights["blocks.0"]
    wanted = generator.blocks[0][0](z[..., None, None]).flatten(1)
    torch.testing.assert_close(z @ weight.T, wanted)


@pytest.mark.parametrize(
    ("name", "layers", "rows"),
    [
        ("all", [0, 6], range(8)),  # with to_img's row
        ("0-1", [0, 1], [0, 1]),
        ("2", [2, 2], [2]),
        ("3-", [3, 6], [3, 4, 5, 6, 7]),
        ("3-6", [3, 6], [3, 4, 5, 6]),  # without
    ],
)
def test_a_layer_range_names_layers_and_moves_rows(checkpoints, name, layers, rows):
    generator = load_generator(checkpoints["mobile_stylegan"])
    found, known = layer_range(generator, name), list(generator.style_weights)
    assert found.layers == tuple(known[layers[0] : layers[1] + 1])
    assert found.rows == tuple(rows)


@pytest.mark.parametrize("name", ["2-1", "7", "0-7", "first", "", "-3", "1-2-3"])
def test_a_layer_range_that_is_none_is_refused(checkpoints, name):
    generator = load_generator(checkpoints["mobile_stylegan"])
    with pytest.raises(InputError, match="wanted all, FIRST-LAST or FIRST- within 0-6"):
        layer_range(generator, name)


def test_a_move_of_later_layers_leaves_earlier_taps_bit_identical(checkpoints):
    generator = load_generator(checkpoints["mobile_stylegan"])
    ws = generator.mapping(torch.from_numpy(sample_z([1, 2], generator.z_dim)))
    vector = random_directions(1, generator.w_dim, 0)[0]
    taps = []
    for one in (ws, move(ws, vector, layer_range(generator, "4-").rows, [2.0, -2.0])):
        with record(generator, generator.taps) as features:
            generator.synthesis(one)
        taps.append(dict(features))
    same = [name for name in taps[0] if torch.equal(taps[0][name], taps[1][name])]
    assert same == ["4px", "8px_conv1", "8px_conv2"]


def test_alpha_zero_is_the_identical_image(generator):
    ws = generator.mapping(torch.from_numpy(sample_z([1], generator.z_dim)))
    vector = random_directions(1, generator.w_dim, 0)[0]
    still = move(ws, vector, range(generator.num_ws), [0.0])
    assert torch.equal(generator.synthesis(still), generator.synthesis(ws))


@pytest.mark.parametrize("psi", [1.0, 0.5])
def test_the_spread_of_w_is_that_of_the_mapping(checkpoints, psi, monkeypatch):
    # several batches, one not full
    monkeypatch.setattr(
        "pipeline.editing.directions.method.BATCH", 64
    )  # several batches, one not full
    generator = load_generator(checkpoints["mobile_stylegan"])
    found = spread_of_w(generator, 300, psi, 7)
    w = generator.mapping(torch.from_numpy(sample_z(range(7, 307), generator.z_dim)), psi)[:, 0]
    np.testing.assert_allclose(found.mean, w.double().mean(0).numpy(), atol=1e-6)
    np.testing.assert_allclose(found.covariance, np.cov(w.double().numpy().T), atol=1e-6)
    first = principal(found).vectors[0]
    along = (w.double().numpy() @ first).std(ddof=1)
    assert found.along(first[None])[0] == pytest.approx(along, rel=1e-5)
    others = found.along(random_directions(200, generator.w_dim, 0))
    assert along > others.max(), "the first principal component varies most"
    assert np.sqrt((others**2).mean()) == pytest.approx(found.typical, rel=0.1)


def test_conditional_directions_are_the_published_ones():
    values = {k: np.array(v) for k, v in GOLDEN["interfacegan"].items()}
    for others, wanted in ((["c1"], "proj1"), (["c1", "c2"], "proj2")):
        apart = np.concatenate([values[name] for name in others])
        found = project_out(values["p"][0], apart)
        np.testing.assert_allclose(found, values[wanted][0], atol=1e-9)
        np.testing.assert_allclose(apart @ found, 0, atol=1e-9)
    assert project_out(values["p"][0], np.zeros((0, 4))) == pytest.approx(values["p"][0])
    with pytest.raises(InputError, match="in the span of those to leave alone"):
        project_out(values["p"][0], values["p"])


def test_positions_from_a_boundary_are_the_published_ones():
    values = {k: np.array(v) for k, v in GOLDEN["interfacegan"].items()}
    found = to_positions(values["lin"][2], values["p"][0], [-3, -1, 1, 3])
    np.testing.assert_allclose(found, values["lin"], atol=1e-9)


@pytest.mark.parametrize(
    ("candidates", "wanted"), [(10, 0.917), (50, 0.889), (100, 0.879), (256, 0.866), (512, 0.857)]
)
def test_the_chance_level_of_a_distance(candidates, wanted):
    found = chance_distances(512, candidates, 2000)
    assert len(found) == 2000
    assert found.mean() == pytest.approx(wanted, abs=0.002)
    if candidates == 512:
        assert found.mean() == pytest.approx(GOLDEN["cos_chance"]["dist_mean"], abs=0.002)
        assert found.std() == pytest.approx(GOLDEN["cos_chance"]["dist_sd"], abs=0.002)


def test_chance_is_what_random_bases_give():
    rng = np.random.default_rng(0)
    bases = [np.linalg.qr(rng.standard_normal((20, 20)))[0].T[:5] for _ in range(300)]
    vectors = random_directions(300, 20, 1)
    drawn = [nearest(v, basis)[0] for v, basis in zip(vectors, bases, strict=True)]
    assert np.mean(drawn) == pytest.approx(chance_distances(20, 5, 5000).mean(), abs=0.02)


def test_the_nearest_direction_has_either_sign():
    assert nearest(np.array([0.6, -0.8]), np.eye(2)) == pytest.approx((0.2, 1))


@pytest.mark.parametrize("count", [4, 40])
def test_a_boundary_points_to_what_tells_two_groups_apart(count):
    planted, rng = np.eye(30)[3], np.random.default_rng(0)
    low, high = (rng.standard_normal((count, 30)) + side * 6 * planted for side in (-1, 1))
    normal = fit_boundary(low, high, 0.1)
    assert np.linalg.norm(normal) == pytest.approx(1)
    assert normal @ planted > 0.8
    np.testing.assert_allclose(fit_boundary(high, low, 0.1), -normal, atol=1e-12)
