import numpy as np
import pytest
import test_teachers
import torch

from pipeline.data.images import to_float
from pipeline.reporting.cards import model_card
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import sha256
from pipeline.runtime.weights import read_safetensors
from pipeline.teachers import loop
from pipeline.teachers.faces import Pairs, load_pairs
from pipeline.teachers.labels import label_space
from pipeline.teachers.networks import UNet
from pipeline.teachers.options import Recipe
from pipeline.teachers.registry import load_teacher
from pipeline.teachers.training import NETWORKS, split, train

RECIPE = Recipe(
    architecture="unet",
    train=4,
    validation=1,
    test=1,
    train_part="all",
    steps=4,
    batch=2,
    learning_rate=0.004,
    seed=3,
)


class SmallUNet(UNet):
    """The real network, a hundredth of its width."""

    def __init__(self, num_classes: int):
        super().__init__(num_classes, (4, 4, 8, 8, 8))


@pytest.fixture
def faces(tmp_path, monkeypatch):
    monkeypatch.setitem(NETWORKS, "unet", SmallUNet)
    rng = np.random.default_rng(0)
    for index in range(6):
        image = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
        mask = np.kron(rng.integers(0, 19, (4, 4)), np.ones((16, 16))).astype(np.uint8)
        test_teachers.write_pair(tmp_path / "faces", f"{index:03}", image, mask)
    return tmp_path / "faces"


def fit(faces, name, recipe=RECIPE, save_every=2, start=None):
    weights = faces.parent / f"{name}.safetensors"
    state = weights.with_suffix(".state")
    facts = train(faces, weights, recipe, state, torch.device("cpu"), start, save_every=save_every)
    assert not state.exists(), "a finished run leaves no state"
    return weights, facts


def interrupt_at(step, monkeypatch):
    """Let the loss of `step` (from 1) raise, as a signal would; returns the steps that ran."""
    loss, ran = loop._loss, []

    def raising(*args):
        ran.append(len(ran) + 1)
        if len(ran) == step:
            raise KeyboardInterrupt
        return loss(*args)

    monkeypatch.setattr(loop, "_loss", raising)
    return ran


@pytest.mark.parametrize(
    "steps, polish",
    [
        pytest.param(4, 0, id="one phase"),
        pytest.param(2, 2, id="saved between the phases"),
        pytest.param(1, 3, id="saved in the second phase"),
    ],
)
def test_a_resumed_run_gives_the_weights_of_an_uninterrupted_one(faces, monkeypatch, steps, polish):
    recipe = Recipe(**vars(RECIPE) | {"steps": steps, "polish": polish})
    whole, facts = fit(faces, "whole", recipe)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(4, patch)
        fit(faces, "killed", recipe)
    state = faces.parent / "killed.state"
    assert state.exists() and not (faces.parent / "killed.safetensors").exists()
    assert torch.load(state, weights_only=True)["step"] == 2
    torch.manual_seed(12345)  # what a new process starts with must not matter
    with monkeypatch.context() as patch:
        ran = interrupt_at(99, patch)
        resumed, found = fit(faces, "killed", recipe)
    assert len(ran) == 2, "only the steps that were lost"
    assert sha256(resumed) == sha256(whole) and found == facts


def test_the_state_of_another_recipe_is_ignored(faces, monkeypatch):
    other = Recipe(**vars(RECIPE) | {"learning_rate": 0.01})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(4, patch)
        fit(faces, "x", other)
    assert (faces.parent / "x.state").exists()
    anew, _ = fit(faces, "x")
    fresh, _ = fit(faces, "fresh")
    assert sha256(anew) == sha256(fresh)


def test_weights_carry_the_recipe_and_can_be_scored_again(faces):
    weights, facts = fit(faces, "whole")
    tensors, found = read_safetensors(weights)
    assert {key: found[key] for key in vars(RECIPE)} == vars(RECIPE)
    assert all(v.dtype == torch.float16 for v in tensors.values())
    assert set(facts["scores"]) == {"validation", "test", "test_64px"}
    *_, test = split(load_pairs(faces, 256, 19), RECIPE)
    predicted = load_teacher(weights).label(to_float(test.images.numpy()), 256)
    target = label_space("celebamask15").merge_ids(test.masks.numpy())
    accuracy = 100 * (predicted == target).mean()  # in half precision a pixel may change its class
    assert facts["scores"]["test"]["pixel_accuracy"] == pytest.approx(accuracy, abs=1)


def test_training_goes_on_from_weights(faces):
    first, _ = fit(faces, "first")
    still = Recipe(**vars(RECIPE) | {"steps": 0, "polish": 1, "learning_rate": 0.0})
    second, facts = fit(faces, "second", still, start=first)
    before, after = (read_safetensors(path)[0] for path in (first, second))
    same = [name for name in before if "running" not in name and "num_batches" not in name]
    assert all(torch.equal(before[name], after[name]) for name in same), "rate 0 moves nothing"
    assert facts["start"] == str(first) and facts["start_sha256"] == sha256(first)[:16]
    assert f"--start {first}" in model_card("second", facts, 1)
    pyramid = Recipe(**vars(still) | {"architecture": "feature_pyramid"})
    with pytest.raises(InputError, match="of architecture unet; wanted weights"):
        fit(faces, "third", pyramid, start=first)


def test_training_learns(faces):
    recipe = Recipe(**vars(RECIPE) | {"steps": 1})
    before, _ = fit(faces, "one", recipe)
    after, _ = fit(faces, "four")
    first, second = (read_safetensors(path)[0] for path in (before, after))
    moved = [name for name in first if not torch.equal(first[name], second[name])]
    assert {"head.weight", "down.0.0.0.weight", "down.0.0.1.running_mean"} <= set(moved)
    assert all(v.isfinite().all() for v in second.values())


@pytest.mark.parametrize(
    "part, rows", [("all", range(4)), ("first", range(2)), ("second", range(2, 4))]
)
def test_splits_never_overlap(part, rows):
    images = torch.arange(7, dtype=torch.uint8).view(7, 1, 1, 1).expand(7, 3, 2, 2)
    pairs = Pairs(images, images[:, 0], "x")
    parts = split(pairs, Recipe(**vars(RECIPE) | {"train_part": part}))
    ids = [p.images[:, 0, 0, 0].tolist() for p in parts]
    assert ids == [list(rows), [4], [5]]


def test_impossible_recipes_are_refused(faces):
    for changes, message in [
        ({"train": 10}, r"6 pairs; wanted 12 \(10 \+ 1 \+ 1\)"),
        ({"train_part": "third"}, "wanted one of all, first, second"),
        ({"architecture": "vit"}, "wanted one of unet, feature_pyramid"),
    ]:
        with pytest.raises(InputError, match=message):
            fit(faces, "x", Recipe(**vars(RECIPE) | changes))
