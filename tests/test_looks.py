"""Conditional samples that keep a look: class colors, the search, and the tool's files."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import toys
from PIL import Image

from pipeline.data.mask_files import write_mask
from pipeline.editing.optimize import ByExtractor, Forward
from pipeline.editing.sampling.look_options import LookChoice
from pipeline.editing.sampling.looks import (
    Look,
    Wish,
    look_of,
    look_of_sample,
    mean_colors,
    pixel_shares,
    read_wish,
    sample_with_look,
)
from pipeline.editing.sampling.method import sample_conditionally
from pipeline.editing.sampling.options import Search
from pipeline.extractors.appearance import COLORS, preview
from pipeline.extractors.networks import LSE, save_extractor
from pipeline.generators.registry import load_generator
from pipeline.runtime.errors import InputError
from stages import flatten
from stages.sample_conditionally import sample_conditionally as tool

NUM, SIZE = len(toys.CLASSES), 16
SEARCH = Search(candidates=3, steps=30, learning_rate=0.1)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linear(classes, taps, seed, bias=False):
    found = LSE(classes, taps, bias=bias)
    found.set_matrix(0.3 * drawn(sum(tap.channels for tap in taps), len(classes), seed=seed))
    return found.requires_grad_(False)


@pytest.fixture(scope="module")
def generator(checkpoints):
    return load_generator(checkpoints["mobile_stylegan"])


@pytest.fixture(scope="module")
def segmenter(generator):
    return ByExtractor(linear(toys.CLASSES, generator.taps[:2], 1))


@pytest.fixture(scope="module")
def appearance(generator):
    return linear(COLORS, generator.taps[:3], 2, bias=True)


def mask_of(generator, segmenter, z):
    with torch.no_grad():
        rendered = Forward(generator, "z", tuple(segmenter.taps))(z)
        return segmenter.logits(rendered, SIZE).argmax(1).to(torch.uint8).numpy()


def test_mean_colors_by_hand():
    image = torch.zeros(1, 3, 2, 2)
    image[0, 0] = torch.tensor([[1.0, 0.5], [-1.0, 0.0]])
    mask = torch.tensor([[[0, 0], [1, 1]]], dtype=torch.uint8)
    found = mean_colors(image, pixel_shares(mask, 3, 2))
    assert found[0, :, 0].tolist() == [0.75, -0.5, 0.0] and not found[0, :, 1:].any()


def test_a_mask_may_be_larger_than_the_image():
    mask = torch.zeros(1, 6, 6, dtype=torch.uint8)
    mask[:, :, 3:] = 1
    shares = pixel_shares(mask, 2, 3)
    assert shares[0, 1, 0].tolist() == [0.0, 0.5, 1.0]
    assert torch.equal(shares.sum(1), torch.ones(1, 3, 3))
    look = look_of(torch.ones(3, 3, 3), mask[0], 4)
    assert look.shares.tolist() == pytest.approx([0.5, 0.5, 0, 0])
    assert look.colors[:2].flatten().tolist() == pytest.approx([1.0] * 6)


def test_the_look_of_a_sample_is_that_of_its_preview(generator, segmenter, appearance):
    ws = generator.mapping(drawn(1, generator.z_dim))
    found = look_of_sample(generator, segmenter, appearance, ws)
    image, size = preview(generator, appearance, ws)[0], appearance.taps[-1].resolution
    with torch.no_grad():
        rendered = Forward(generator, "w_plus", segmenter.taps)(ws)
        mask = segmenter.logits(rendered, size).argmax(1)[0]
    wanted = torch.stack([image[:, mask == k].mean(1) for k in mask.unique()])
    assert torch.allclose(found.colors[mask.unique()], wanted, atol=1e-5)
    assert found.shares.sum() == pytest.approx(1)


def apart(generator, appearance, look, z, target):
    """Mean squared distance of the colors of the target's classes from the look's."""
    image = preview(generator, appearance, generator.mapping(z)).detach()
    areas = pixel_shares(torch.from_numpy(target), NUM, image.shape[-1])
    some = (areas.mean((2, 3)) > 0.002)[0] & (look.shares > 0.002)
    return (mean_colors(image, areas)[0] - look.colors)[some].square().sum(1).mean()


def test_samples_take_on_the_colors_and_keep_the_mask(generator, segmenter, appearance):
    target = mask_of(generator, segmenter, drawn(1, generator.z_dim, seed=5))
    ws = generator.mapping(drawn(1, generator.z_dim, seed=6))
    look = look_of_sample(generator, segmenter, appearance, ws)
    keys, wish = [(0, 0)], Wish(look, appearance, 100.0)
    _, free = sample_conditionally(generator, segmenter, target, keys, SEARCH)
    z_0, held = sample_with_look(generator, segmenter, wish, target, keys, SEARCH)
    distances = [apart(generator, appearance, look, z, target) for z in (free.last, held.last)]
    assert distances[1] < 0.5 * distances[0]
    assert held.losses[-1] < held.losses[0] and z_0.shape == (1, generator.z_dim)


def test_no_weight_is_the_search_without_a_look(generator, segmenter, appearance):
    target = mask_of(generator, segmenter, drawn(1, generator.z_dim, seed=5))
    look = Look(torch.zeros(NUM, 3), torch.ones(NUM))
    one = replace(SEARCH, candidates=1, steps=5)
    wish = Wish(look, appearance, 0.0)
    _, free = sample_conditionally(generator, segmenter, target, [(0, 1)], one)
    _, held = sample_with_look(generator, segmenter, wish, target, [(0, 1)], one)
    assert torch.allclose(free.last, held.last, atol=1e-5)


def test_a_batch_goes_as_each_sample_alone(generator, segmenter, appearance):
    target = mask_of(generator, segmenter, drawn(2, generator.z_dim, seed=5))
    wish = Wish(Look(drawn(NUM, 3), torch.ones(NUM)), appearance, 1.0)
    few, keys = replace(SEARCH, steps=3), [(0, 0), (1, 0)]
    _, both = sample_with_look(generator, segmenter, wish, target, keys, few)
    _, one = sample_with_look(generator, segmenter, wish, target[1:], keys[1:], few)
    assert torch.allclose(both.last[1:], one.last, atol=1e-4)


def test_a_look_without_a_common_class_is_refused(generator, segmenter, appearance):
    target = np.zeros((1, SIZE, SIZE), np.uint8)
    look = Look(torch.zeros(NUM, 3), torch.tensor([0.0, 0.5, 0.5, 0.0]))
    with pytest.raises(InputError, match="target that shows no class of the look"):
        sample_with_look(
            generator, segmenter, Wish(look, appearance, 1.0), target, [(0, 0)], SEARCH
        )


# The tool


@pytest.fixture
def files(tmp_path, checkpoints, generator, segmenter, appearance):
    """A toy study, and an image with its mask beside it."""
    checkpoint = checkpoints["mobile_stylegan"]
    save_extractor(tmp_path / "lse.safetensors", segmenter.extractor, {})
    save_extractor(tmp_path / "appearance.safetensors", appearance, {})
    toys.write_latents(tmp_path / "latents.zarr.zip", checkpoint)
    ids = np.arange(SIZE**2).reshape(SIZE, SIZE) // 64
    write_mask(tmp_path / "target.png", ids.astype(np.uint8), toys.CLASSES)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    write_mask(tmp_path / "one_mask.png", ids.astype(np.uint8), toys.CLASSES)
    return tmp_path, checkpoint


def wish_of(files, generator, segmenter, **choice):
    folder, _ = files
    given = {"appearance": folder / "appearance.safetensors"} | choice
    return read_wish(generator, segmenter, LookChoice(**given))


def test_looks_are_read_from_images_and_rows(files, generator, segmenter, appearance):
    folder, _ = files
    assert wish_of(files, generator, segmenter) is None
    of_file = wish_of(files, generator, segmenter, look=str(folder / "one.png"), look_weight=2.0)
    assert of_file.weight == 2 and of_file.look.shares.tolist() == pytest.approx([0.25] * 4)
    assert of_file.look.colors.abs().max() < 0.4  # noise, averaged
    latents = folder / "latents.zarr.zip"
    rows = [wish_of(files, generator, segmenter, look=r, latents=latents).look for r in "01"]
    assert not torch.allclose(rows[0].colors, rows[1].colors)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"look": "0", "appearance": None}, "look 0 without an appearance; .*--appearance"),
        ({"look": "0"}, "look 0, a row; wanted its file of latents; name it by --latents"),
        ({"look": "9", "latents": True}, "row 9 of 3 in test of .*; wanted a row that is there"),
        ({"look": "two.png"}, r"two.png of 40x40 px, without .*two_mask.png; wanted a square"),
    ],
)
def test_what_does_not_fit_gets_a_sentence(files, generator, segmenter, choice, message):
    folder, _ = files
    Image.open(folder / "one.png").save(folder / "two.png")
    if choice.get("latents"):
        choice = choice | {"latents": folder / "latents.zarr.zip"}
    if choice["look"].endswith("png"):
        choice = choice | {"look": str(folder / choice["look"])}
    with pytest.raises(InputError, match=message):
        wish_of(files, generator, segmenter, **choice)


def test_the_tool_takes_a_look(files):
    folder, checkpoint = files
    options = {"target": [folder / "target.png"], "samples": 1, "candidates": 2, "steps": 2}
    look = {"look": "1", "latents": folder / "latents.zarr.zip"}
    look["appearance"] = folder / "appearance.safetensors"
    extractor = folder / "lse.safetensors"
    flatten(tool)(checkpoint, extractor, out=folder / "any", **options)
    flatten(tool)(checkpoint, extractor, out=folder / "kept", **(options | look))
    with np.load(folder / "any/latents.npz") as a, np.load(folder / "kept/latents.npz") as b:
        assert a["z_last"].shape == b["z_last"].shape and (a["z_last"] != b["z_last"]).any()
