"""The training loop on planted rules, whose answers are known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.data.arrays import Group, write_group
from pipeline.data.features import Source, plan_features, plan_pixels
from pipeline.data.stores import Store
from pipeline.extractors import training
from pipeline.extractors.fitting import fit_nonlinear
from pipeline.extractors.networks import LSE, NSE1, NSE2, Window, base, build, save_extractor
from pipeline.extractors.prediction import predict_masks
from pipeline.extractors.recipe import CachedSamples
from pipeline.extractors.training import (
    Schedule,
    backward,
    draw,
    draw_chances,
    rate,
    rate_of,
    tiles,
    train,
    validation_miou,
)
from pipeline.generators.taps import Tap
from pipeline.runtime.errors import InputError

SIDE = 16  # of the fine tap and of the masks, px
TAPS = (Tap("coarse", "coarse", 5, 4), Tap("fine", "fine", 13, SIDE))
CLASSES = ("background", "same sign", "other sign")
SIZES = {"train": 24, "validation": 6}
SCHEDULE = Schedule(steps=100, batch=8, window=8, learning_rate=0.02, looks=5, patience=5)


class Planted:
    """A store of random maps and masks by a rule that no linear map of the channels follows.

    A pixel is of class 1 where the first two channels have one sign, else of class 2: XOR. The
    channels differ in power, so that their scaling matters.
    """

    def __init__(self, folder, stored="float16"):
        facts = {"classes": list(CLASSES), "num_classes": 3, "align_corners": False}
        facts |= {"taps": [vars(tap) for tap in TAPS], "pixels_per_sample": 1}
        plan = plan_features({}, TAPS, stored, SIDE, SIZES, 8)
        self.store, self.pixels = Store(plan), Store(plan_pixels(facts, 18, "float16", SIZES, 8))
        self.store.create()
        rng, masks = np.random.default_rng(0), {}
        for shard in plan.shards():
            arrays = {
                a.name: rng.normal(size=(shard.stop - shard.start, *a.shape)).astype(a.dtype)
                for a in plan.arrays
            }
            arrays["fine"][..., 1] *= 20
            self.store.write(shard, arrays)
            drawn = np.where(arrays["fine"][..., 0] * arrays["fine"][..., 1] > 0, 1, 2)
            masks.setdefault(f"{shard.split}/masks", []).append(drawn.astype(np.uint8))
        self.masks = str(folder / "masks.zarr.zip")
        joined = {name: np.concatenate(parts) for name, parts in masks.items()}
        write_group(self.masks, joined, {"classes": list(CLASSES)})

    def samples(self, split):
        return CachedSamples(self.store, self.masks, split, TAPS, "cpu")


@pytest.fixture
def planted(tmp_path, store_root):
    return Planted(tmp_path)


@pytest.fixture
def exact(monkeypatch):
    """The same numbers on every processor."""
    monkeypatch.setattr(training, "fast_bfloat16", lambda device: False)
    monkeypatch.setattr(base, "fast_bfloat16", lambda device: False)


def fit(planted, name, schedule=SCHEDULE):
    return fit_nonlinear(planted.store, planted.masks, planted.pixels, name, 0, schedule, "cpu")


@pytest.mark.parametrize(
    ("name", "steps", "least"), [("nse1", 100, 85), ("nse1_3x3", 200, 45), ("nse2", 150, 45)]
)
def test_a_nonlinear_rule_is_learned(planted, exact, name, steps, least):
    """The 3x3 kernels also see neighbors, here pure noise, and are slower to leave them out."""
    extractor, facts = fit(planted, name, replace(SCHEDULE, steps=steps))
    assert facts["validation_miou"] > least
    losses = [look["loss"] for look in facts["training_curve"]]
    assert losses[-1] < 0.8 * losses[0]
    assert facts["parameters"] == sum(p.numel() for p in extractor.parameters())
    assert facts["passes"] == pytest.approx(steps * 8 / 24, abs=0.01)
    assert extractor.classes == CLASSES and extractor.taps == TAPS


def test_a_linear_extractor_cannot_learn_it(planted, exact):
    _, facts = fit(planted, "lse")
    assert facts["validation_miou"] < 35, "half of the pixels by chance is an IoU of a third"


def test_the_fit_predicts_on_unscaled_features_what_validation_saw(planted, exact):
    extractor, facts = fit(planted, "nse1")
    held = planted.samples("validation")
    ones = [torch.ones(tap.channels) for tap in TAPS]
    miou = 100 * validation_miou(extractor, held, ones)
    assert miou == pytest.approx(facts["validation_miou"], abs=0.2)
    features = {
        tap.name: torch.stack([held[i].taps[index].float() for i in range(6)])
        for index, tap in enumerate(TAPS)
    }
    right = (extractor.predict(features, SIDE) == held.masks).mean()
    assert right > 0.9


def test_the_best_look_is_kept(planted, exact):
    """From the rule itself, wrong masks lead away: the first look is best, then patience ends."""
    extractor, _ = fit(planted, "nse1")
    held, samples = planted.samples("validation"), planted.samples("train")
    samples.masks = 3 - samples.masks
    schedule = Schedule(steps=400, batch=8, window=16, learning_rate=0.01, looks=40, patience=3)
    inverse = training.root_mean_squares(samples)
    extractor.absorb(inverse)  # undo the scaling, which training does again
    facts = train(extractor.requires_grad_(True), samples, held, schedule)
    scores = [look["miou"] for look in facts["training_curve"]]
    best = int(np.argmax(scores))
    assert len(scores) == best + 1 + 3 < 40 and facts["steps_done"] == 10 * len(scores)
    assert facts["chosen_step"] == 10 * (best + 1) and max(scores) > scores[-1] + 10
    ones = [torch.ones(tap.channels) for tap in TAPS]
    kept = 100 * validation_miou(extractor, held, ones)
    assert kept == pytest.approx(max(scores), abs=0.2)


@pytest.mark.parametrize("kind", [LSE, NSE1, NSE2])
def test_windows_estimate_the_whole_loss_and_gradient(planted, exact, kind):
    torch.manual_seed(0)
    extractor, samples = kind(CLASSES, TAPS), planted.samples("train")
    batch, ones = [samples[0], samples[1]], [torch.ones(tap.channels) for tap in TAPS]

    def gradients(windows):
        extractor.zero_grad()
        loss = backward(extractor, [(w, batch, np.ones(2)) for w in windows], ones)
        return loss, [p.grad for p in extractor.parameters()]

    features = {
        tap.name: torch.stack([sample.taps[index].float() for sample in batch])
        for index, tap in enumerate(TAPS)
    }
    whole = F.cross_entropy(
        extractor.logits(features, SIDE), torch.stack([sample.mask for sample in batch])
    )
    extractor.zero_grad()
    whole.backward()
    expected = [p.grad.clone() for p in extractor.parameters()]
    for side in (4, 8, 16):
        loss, found = gradients(tiles(SIDE, side))
        assert loss == pytest.approx(float(whole.detach()), rel=1e-5)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_a_batch_is_a_weighted_mean_over_its_samples(planted, exact):
    extractor, samples = LSE(CLASSES, TAPS), planted.samples("train")
    ones, windows = [torch.ones(tap.channels) for tap in TAPS], tiles(SIDE, 8)[:2]
    batch = [samples[i] for i in range(3)]
    parts = [
        (windows[0], batch[:2], np.array([0.5, 2.0])),
        (windows[1], batch[2:], np.array([1.5])),
    ]
    losses = [
        float(loss.detach())
        for window, part, _ in parts
        for loss in training.window_losses(extractor, part, ones, window)
    ]
    expected = np.dot(losses, [0.5, 2.0, 1.5]) / 3
    assert backward(extractor, parts, ones) == pytest.approx(expected, rel=1e-5)


def test_rare_classes_are_drawn_often_and_weighted_to_be_unbiased():
    masks = np.zeros((50, 16, 16), np.uint8)
    masks[7, 12:14, 0:4] = 1  # 8 pixels of 12,800
    windows = tiles(16, 4)
    place = windows.index(Window(12, 0, 4))
    chances = draw_chances(masks, windows)
    assert chances.sum() == pytest.approx(1)
    assert chances.min() >= 0.5 / chances.size, "no window is left out"
    assert chances[7, place] == pytest.approx(0.25, abs=0.01), (
        "half of BY_CLASS: one of two classes"
    )
    rng = np.random.default_rng(0)
    drawn, values = 0, []
    value = rng.normal(size=chances.shape) + 3
    for _ in range(3000):
        for window, rows, weights in draw(windows, chances, 6, rng):
            at = windows.index(window)
            drawn += rows.count(7) * (at == place)
            values += (value[rows, at] * weights).tolist()
    assert len(values) == 3000 * 6
    assert drawn / len(values) == pytest.approx(0.25, abs=0.02)
    assert np.mean(values) == pytest.approx(value.mean(), abs=0.08)


def test_int8_codes_are_scaled_by_their_own_scales(planted, tmp_path, exact):
    coded = Planted(tmp_path / "int8", "int8")
    sample = coded.samples("train")[0]
    factor = [torch.full((tap.channels,), 2.0) for tap in TAPS]
    maps = training.stack(LSE(CLASSES, TAPS), [sample], factor)
    expected = 2 * sample.taps[1].float() * sample.scales[1][:, None, None]
    torch.testing.assert_close(maps["fine"][0], expected)


def test_the_same_seed_gives_the_same_weights(planted):
    short = Schedule(steps=4, batch=4, window=8, learning_rate=0.01, looks=1, patience=1)
    first, second = (fit(planted, "nse2", short)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_rate_rises_then_falls_to_zero():
    rates = [rate(step, 200) for step in range(1, 201)]
    assert rates[9] == 1 == max(rates) and rates[0] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0) and rates[104] == pytest.approx(0.5, abs=0.01)
    assert all(b <= a for a, b in zip(rates[9:], rates[10:], strict=False))


def test_tiles_cover_every_pixel_once():
    covered = np.zeros((16, 16), int)
    for window in tiles(16, 4):
        covered[window.top : window.top + 4, window.left : window.left + 4] += 1
    assert (covered == 1).all()
    with pytest.raises(InputError, match="window 5; wanted a divisor of the label size 16"):
        tiles(16, 5)


def test_bfloat16_learns_the_same(planted, monkeypatch):
    """Where bfloat16 is fast it is used: the curve is that of float32 but for rounding."""
    curves = []
    for fast in (True, False):
        monkeypatch.setattr(training, "fast_bfloat16", lambda device, fast=fast: fast)
        curves.append(fit(planted, "nse1")[1]["training_curve"])
    fast, slow = ([look["loss"] for look in curve] for curve in curves)
    assert fast != slow
    assert fast[-1] == pytest.approx(slow[-1], rel=0.25)


def test_a_diverging_fit_is_refused(planted, exact):
    wild = Schedule(steps=20, batch=4, window=16, learning_rate=1e30, looks=1, patience=1)
    with pytest.raises(InputError, match=r"a loss of .* wanted a finite one; lower learning_rate"):
        fit(planted, "nse1", wild)


def test_an_extractor_of_another_study_is_refused(tmp_path, checkpoints, latents):
    source = Source(str(checkpoints["dcgan"]), str(latents["dcgan"]))
    path = tmp_path / "x.safetensors"
    save_extractor(path, build("nse1", CLASSES, TAPS, 0, False), {})
    with pytest.raises(InputError, match=r"reads tap coarse; wanted .* taps are block"):
        predict_masks([str(path)], source, "test", 32, 1)
    own, path = source.generator().taps, tmp_path / "y.safetensors"
    save_extractor(path, build("nse2", CLASSES, own, 4, False), {})
    [masks] = predict_masks([str(path)], source, "test", 32, 1)
    assert masks.shape == (*Group(latents["dcgan"]).read("test", "seeds").shape, 32, 32)
    assert masks.max() < len(CLASSES) and math.prod(masks.shape) > 0


def test_an_extractor_finds_its_own_rate():
    assert rate_of("nse1_3x3", ["nse1=0.01", "nse1_3x3=3e-3"]) == 0.003
    rates = ["nse1=0.01", "ffhq/nse1=0.001"]
    assert [rate_of("nse1", rates, study) for study in ("ffhq", "mine")] == [0.001, 0.01]


@pytest.mark.parametrize(
    ("rates", "said"),
    [(["nse2=0.1"], "no learning rate of nse1"), (["nse1=fast"], "learning rate 'nse1=fast'")],
)
def test_a_missing_or_odd_rate_is_said(rates, said):
    with pytest.raises(InputError, match=said):
        rate_of("nse1", rates)
