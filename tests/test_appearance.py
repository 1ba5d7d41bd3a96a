from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import toys

from pipeline.data.arrays import Group, write_group
from pipeline.data.features import Source
from pipeline.data.images import to_uint8
from pipeline.extractors.appearance import (
    COLORS,
    Moments,
    fit_appearance,
    preview,
    read_appearance,
    synthesize,
)
from pipeline.extractors.networks import LSE, Window, interpolation, save_extractor
from pipeline.extractors.options import AppearanceFit
from pipeline.generators.registry import load_generator
from pipeline.generators.taps import record
from pipeline.runtime.errors import InputError

PSI = 0.7  # of the toys' latents
FIT = AppearanceFit(
    max_tap_resolution=16, samples=5, pixels=64, held_samples=2, psis=(PSI, 1.0), strengths=(1e-4,)
)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=["mobile_stylegan", "dcgan"])
def study(tmp_path_factory, request):
    """A toy study whose images are, by construction, a linear reading of two of its taps."""
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = toys.write_generator(folder / "generator.safetensors", request.param)
    latents = toys.write_latents(folder / "latents.zarr.zip", checkpoint)
    generator, arrays = load_generator(checkpoint), {}
    for split in toys.SIZES:
        ws = torch.from_numpy(Group(latents).read(split, "ws"))
        arrays[f"{split}/images"] = to_uint8(generator.synthesis(ws), 32)
    write_group(folder / "images.zarr.zip", arrays, {})
    return Source(str(checkpoint), str(latents)), str(folder / "images.zarr.zip")


@pytest.mark.parametrize("strength", [0.0, 0.03, 3.0])
def test_the_solution_is_that_of_penalized_least_squares(strength):
    """Against the same problem with one more row per penalized weight, by a general solver."""
    x, y = drawn(300, 7) * torch.arange(1, 8) + 0.5, drawn(300, 3, seed=1) + 2
    moments = Moments(7)
    for rows in (slice(0, 100), slice(100, 300)):
        moments.add(x[rows], y[rows])
    matrix, bias = moments.solve(strength)
    penalty = (strength * len(x) * x.square().mean(0)).sqrt()
    above = torch.cat([x, torch.ones(300, 1)], 1)
    below = torch.cat([penalty.diag(), torch.zeros(7, 1)], 1)
    wanted = torch.linalg.lstsq(
        torch.cat([above, below]).double(), torch.cat([y, torch.zeros(7, 3)]).double()
    ).solution
    torch.testing.assert_close(matrix, wanted[:-1].float(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(bias, wanted[-1].float(), rtol=1e-3, atol=1e-4)


def test_some_channels_alone_and_a_dead_one():
    x, y = drawn(200, 6), drawn(200, 3, seed=1)
    x[:, 2] = 0
    whole, part = Moments(6), Moments(3)
    whole.add(x, y)
    part.add(x[:, [1, 2, 5]], y)
    for ours, wanted in zip(
        whole.solve(0.1, torch.tensor([1, 2, 5])), part.solve(0.1), strict=True
    ):
        torch.testing.assert_close(ours, wanted)
    assert whole.solve(0.1)[0][2].abs().max() < 1e-6


def test_more_channels_than_a_block(monkeypatch):
    monkeypatch.setattr("pipeline.extractors.appearance.BLOCK", 4)
    x, y = drawn(200, 11), drawn(200, 3, seed=1)
    blocks = Moments(11)
    blocks.add(x, y)
    monkeypatch.undo()
    whole = Moments(11)
    whole.add(x, y)
    for ours, wanted in zip(blocks.solve(0.1), whole.solve(0.1), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)


def test_a_planted_reading_is_found(study, monkeypatch):
    """Colors that are a matrix times the maps, plus a bias, are found again."""
    source, images = study
    generator = source.generator()
    taps = [tap for tap in generator.taps if tap.resolution <= 16]
    planted = LSE(COLORS, taps, bias=True)
    planted.set_matrix(0.1 * drawn(sum(tap.channels for tap in taps), 3))
    planted.bias.data = torch.tensor([0.3, -0.2, 0.1])
    planted.requires_grad_(False)

    def colored(*arguments):
        features, found = synthesize(*arguments)
        return features, planted.logits(features, found.shape[-1])[0]

    monkeypatch.setattr("pipeline.extractors.appearance.synthesize", colored)
    loose = replace(FIT, strengths=(1e-4, 1e-5, 1e-6))
    found, facts = fit_appearance(source, images, loose, num_workers=1)
    ws = source.ws("test", 0, 2)
    torch.testing.assert_close(
        preview(generator, found, ws), preview(generator, planted, ws), rtol=1e-2, atol=1e-2
    )
    assert max(facts["validation_r2"].values()) > 0.97
    assert facts["pixels"] == 5 * 64 and found.taps == tuple(taps)


def test_stored_images_serve_at_the_studys_own_truncation(study):
    source, images = study
    taps = [tap for tap in source.generator().taps if tap.resolution <= 16]
    features, stored = synthesize(source, taps, "test", 2, PSI, images, 16)
    again, anew = synthesize(source, taps, "test", 2, PSI + 1e-7, images, 16)
    torch.testing.assert_close(stored, anew, atol=1 / 127, rtol=0)
    for tap in taps:
        torch.testing.assert_close(features[tap.name], again[tap.name], rtol=1e-4, atol=1e-4)
    whole = source.generator().synthesis(source.ws("test", 2, 3)).clamp(-1, 1)
    torch.testing.assert_close(stored, F.avg_pool2d(whole, 2)[0], atol=1 / 127, rtol=0)
    assert synthesize(source, taps, "test", 2, PSI, None, 16)[1] is None


def test_validation_chooses_the_strength(study):
    source, images = study
    many = AppearanceFit(16, 5, 64, 2, (PSI,), (100.0, 0.01, 1e-3))
    found, facts = fit_appearance(source, images, many, num_workers=1)
    scores = facts["validation_r2"]
    assert scores[str(facts["strength"])] == max(scores.values())
    assert len(set(scores.values())) == 3
    for strength in many.strengths:
        one = AppearanceFit(16, 5, 64, 2, (PSI,), (strength,))
        alone = fit_appearance(source, images, one, num_workers=1)[1]["validation_r2"]
        assert alone[str(strength)] == pytest.approx(scores[str(strength)], abs=1e-5)
    assert found.bias is not None


def test_two_processes_fit_as_one(study):
    source, images = study
    fits = [fit_appearance(source, images, FIT, num_workers)[0] for num_workers in (1, 2)]
    for name, value in fits[0].tensors().items():
        torch.testing.assert_close(fits[1].tensors()[name], value, rtol=1e-3, atol=1e-4)


def test_a_preview_ends_at_the_last_tap_and_has_a_gradient(study):
    source, _ = study
    generator = source.generator()
    taps = generator.taps[:2]
    appearance = LSE(COLORS, taps, bias=True).requires_grad_(False)
    ws = source.ws("test", 0, 1).clone().requires_grad_()
    with record(generator, generator.taps) as features:
        seen = preview(generator, appearance, ws)
    assert list(features) == [tap.name for tap in taps]
    assert seen.shape == (1, 3, taps[-1].resolution, taps[-1].resolution)
    seen.sum().backward()
    assert ws.grad.abs().sum() > 0


def test_a_mask_predicted_first_does_not_break_later_gradients():
    """What inference mode caches must not be an inference tensor."""
    interpolation.cache_clear()
    generator = toys.toy_network("mobile_stylegan")
    appearance = LSE(COLORS, generator.taps[:2], bias=True).requires_grad_(False)
    ws = generator.mapping(drawn(1, generator.z_dim))
    with torch.inference_mode(), record(generator, appearance.taps) as features:
        generator.synthesis(ws)
        appearance.logits(features, 32, Window(0, 0, 32))
    ws.requires_grad_()
    with record(generator, appearance.taps) as features:
        generator.synthesis(ws)
    appearance.logits(features, 32, Window(0, 0, 32)).square().sum().backward()
    assert ws.grad.abs().sum() > 0


def test_files_are_read_back_and_others_refused(tmp_path):
    generator = toys.toy_network("dcgan")
    appearance, path = LSE(COLORS, generator.taps, bias=True), tmp_path / "a.safetensors"
    save_extractor(path, appearance, {})
    found = read_appearance(path)
    for name, value in appearance.tensors().items():
        assert torch.equal(found.tensors()[name], value)
    save_extractor(path, LSE(toys.CLASSES, generator.taps), {})
    with pytest.raises(InputError, match=r"bg, skin, nose, hair; wanted one of red, green, blue"):
        read_appearance(path)


def test_an_empty_split_is_refused(tmp_path):
    checkpoint = toys.write_generator(tmp_path / "generator.safetensors", "dcgan")
    sizes = toys.SIZES | {"validation": 0}
    latents = toys.write_latents(tmp_path / "latents.zarr.zip", checkpoint, sizes)
    images = {f"{split}/images": np.zeros((n, 3, 32, 32), np.uint8) for split, n in sizes.items()}
    write_group(tmp_path / "images.zarr.zip", images, {})
    source = Source(str(checkpoint), str(latents))
    with pytest.raises(InputError, match="no samples in validation"):
        fit_appearance(source, str(tmp_path / "images.zarr.zip"), FIT, num_workers=1)
