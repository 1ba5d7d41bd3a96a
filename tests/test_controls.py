import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import toys

from pipeline.analysis import control_features
from pipeline.analysis.control_features import (
    GeneratorFeatures,
    ImageFeatures,
    Reinitialized,
    encode,
    fourier,
    levels,
    redraw,
)
from pipeline.analysis.controls import (
    CONTROLS,
    Study,
    fit_control,
    measure_controls,
    run_control,
    sample_columns,
)
from pipeline.analysis.options import Settings
from pipeline.data.arrays import Group, write_group
from pipeline.data.features import Source, fill, plan_pixels, stream
from pipeline.data.images import to_float
from pipeline.data.stores import write_manifest
from pipeline.extractors import problems
from pipeline.extractors.fitting import fit_lse
from pipeline.extractors.networks import LSE
from pipeline.generators.registry import load_generator
from pipeline.metrics.iou import miou_dataset
from pipeline.runtime.errors import InputError

SIZE = 32
SIZES = {"train": 12, "validation": 6, "test": 5, "pool": 0}
SETTINGS = Settings((1e-2, 1e-5), 40, 100_000, ("rgb",))


def random_images(seed=0):
    """Images in which a pixel's color says nothing about its place, nor its neighbor's."""
    rng = np.random.default_rng(seed)
    return {
        f"{s}/images": rng.integers(0, 256, (n, 3, SIZE, SIZE), np.uint8) for s, n in SIZES.items()
    }


def study_of(folder, checkpoint, images, masks, count=256):
    """A study on disk with these images and masks, and a store of sampled pixels."""
    latents = toys.write_latents(folder / "latents.zarr.zip", checkpoint, SIZES)
    write_group(folder / "images.zarr.zip", images, {})
    write_group(folder / "masks.zarr.zip", masks, {"classes": list(toys.CLASSES)})
    source = Source(str(checkpoint), str(latents))
    taps = source.generator().taps
    facts = {
        "num_classes": len(toys.CLASSES),
        "classes": list(toys.CLASSES),
        "taps": [vars(tap) for tap in taps],
        "channels": sum(tap.channels for tap in taps),
        "resolution": SIZE,
        "pixels_per_sample": count,
        "align_corners": False,
    }
    splits = {split: SIZES[split] for split in ("train", "validation")}
    plan = plan_pixels(facts, facts["channels"], "float16", splits, 8)
    store = fill(plan, source, taps, 1.0, 1, str(folder / "masks.zarr.zip"))
    write_manifest(folder / "pixels.json", store, ["never"])
    return Study(source, str(folder / "images.zarr.zip"), store)


@pytest.fixture(scope="module")
def by_place():
    """Four quarters of the square, one a class: 0 1 over 2 3."""
    rows, columns = np.divmod(np.arange(SIZE * SIZE), SIZE)
    quarters = (2 * (rows >= SIZE // 2) + (columns >= SIZE // 2)).reshape(SIZE, SIZE)
    return {f"{s}/masks": np.tile(quarters.astype(np.uint8), (n, 1, 1)) for s, n in SIZES.items()}


@pytest.fixture
def by_color():
    """Class 1, 2 or 3 where red, green or blue is the largest."""
    images = random_images(1)
    masks = {
        n.replace("images", "masks"): 1 + v.argmax(1).astype(np.uint8) for n, v in images.items()
    }
    return images, masks


@pytest.fixture
def float32(monkeypatch):
    """The same numbers on every processor."""
    monkeypatch.setattr(problems, "STORED", torch.float32)


@pytest.fixture
def placed(tmp_path, checkpoints, by_place, float32):
    return study_of(tmp_path, checkpoints["mobile_stylegan"], random_images(), by_place)


@pytest.mark.parametrize("size", [2, 8])
def test_waves_at_points_computed_by_hand(size, monkeypatch):
    monkeypatch.setattr(control_features, "WAVES", 2)  # (k, l) = (1, 0), (-1, 1), (0, 1), (1, 1)
    fourier.cache_clear()
    waves = fourier(size)
    fourier.cache_clear()
    assert waves.shape == (8, size, size)
    x, y = (size - 0.5) / size, 0.5 / size  # the last pixel of the first row
    phases = [math.pi * p for p in (x, y - x, y, x + y)]
    by_hand = [math.sin(p) for p in phases] + [math.cos(p) for p in phases]
    torch.testing.assert_close(waves[:, 0, -1], torch.tensor(by_hand), atol=1e-5, rtol=0)


def test_no_wave_is_there_twice():
    waves = fourier(SIZE).flatten(1).double()
    assert len(waves) == 316
    correlation = torch.corrcoef(waves).abs() - torch.eye(len(waves))
    assert correlation.max() < 0.999


def test_place_is_found_by_waves_and_not_by_color(placed, by_place):
    target = by_place["test/masks"]
    scores = {}
    for name in ("fourier", "rgb", "fourier_rgb"):
        masks, facts = run_control(name, placed, SETTINGS, 1)
        scores[name] = miou_dataset(masks, target, 4).mean
        assert facts["parameters"] == (facts["channels"] + 1) * 4, "with a bias"
    assert scores["fourier"] > 0.95 and scores["fourier_rgb"] > 0.95
    assert scores["rgb"] < 0.4


def test_color_is_found_by_rgb_and_not_by_waves(tmp_path, checkpoints, by_color, float32):
    images, masks = by_color
    study = study_of(tmp_path, checkpoints["dcgan"], images, masks)
    target, scores = masks["test/masks"], {}
    for name in ("fourier", "rgb"):
        predicted, _ = run_control(name, study, SETTINGS, 1)
        scores[name] = miou_dataset(predicted, target, 4).mean
    assert scores["rgb"] > 0.9
    assert scores["fourier"] < 0.4


def test_the_encoder_sees_a_pixels_neighbors_and_its_seed():
    image = torch.zeros(1, 3, SIZE, SIZE)
    moved = image.clone()
    moved[..., 20, 20] = 1
    first, second = encode(image, 0), encode(moved, 0)
    assert [(x.shape[1], x.shape[-1]) for x in first.values()] == [(c, r) for r, c in levels(SIZE)]
    changed = (first["32px"] != second["32px"]).any(1)[0].nonzero()
    assert changed.min(0).values.tolist() == [19, 19] and changed.max(0).values.tolist() == [21, 21]
    assert not torch.equal(first["4px"], second["4px"])
    assert all(torch.equal(x, encode(image, 0)[name]) for name, x in first.items())
    assert not torch.equal(first["32px"], encode(image, 1)["32px"])


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        (64, [(64, 64), (32, 128), (16, 256), (8, 256), (4, 256)]),
        (8, [(8, 64), (4, 128)]),
        (4, [(4, 64)]),
    ],
)
def test_levels_halve_down_to_four_pixels(size, wanted):
    assert levels(size) == wanted


@pytest.mark.parametrize("name", ["random_conv", "reinitialized"])
def test_sampled_columns_are_dense_lookups(placed, name):
    features = placed.features(name, 3)
    read = sample_columns(placed, features, "train", 12 * 64, 1)
    drawn = placed.pixels.read("train", slice(None), ("places", "classes", "weights"))
    drawn = {k: v[:, ::4] for k, v in drawn.items()}  # 64 of 256 draws, evenly spread
    maps = {tap.name: [] for tap in features.taps}
    for part in features.maps("train", 0, SIZES["train"]):
        for k, x in part.items():
            maps[k].append(x)
    dense = torch.cat(
        [
            torch.nn.functional.interpolate(
                torch.cat(maps[tap.name]), (SIZE, SIZE), mode="bilinear"
            )
            for tap in features.taps
        ],
        1,
    )
    rows = [
        x.flatten(1)[:, torch.from_numpy(p).long()].T
        for x, p in zip(dense, drawn["places"], strict=True)
    ]
    scale = dense.abs().max()
    torch.testing.assert_close(read.x / scale, torch.cat(rows) / scale, atol=1e-5, rtol=0)
    assert read.y.tolist() == drawn["classes"].ravel().tolist()
    assert read.weights.tolist() == drawn["weights"].ravel().tolist()


def test_the_trained_features_give_the_lse_itself(placed):
    """The control's path differs from fit_lse in nothing but the features."""
    lse, facts = fit_lse(placed.pixels, "lse", list(SETTINGS.l2), 8, 100_000, "cpu")
    features = GeneratorFeatures(placed.source)
    train = sample_columns(placed, features, "train", 100_000, 1)
    held = sample_columns(placed, features, "validation", 25_000, 1)
    settings = replace(SETTINGS, iterations=8)
    found = fit_control(train, held, 4, settings, False, SIZES["train"])
    assert (found.l2, found.iteration) == (facts["l2"], facts["iteration"])
    again = LSE(lse.classes, lse.taps)
    again.set_matrix(found.matrix)
    (maps,) = [m for m, _ in stream(placed.source, "test", 0, SIZES["test"], lse.taps)]
    same = lse.predict(maps, SIZE) == again.predict(maps, SIZE)
    assert same.mean() > 0.98, "to the rounding of stored features"


@pytest.mark.parametrize("family", ["dcgan", "mobile_stylegan"])
def test_a_redrawn_generator_is_another_of_the_same_form(checkpoints, latents, family):
    plain = Source(str(checkpoints[family]), str(latents[family]))
    before = {k: v.clone() for k, v in plain.generator().state_dict().items()}

    def features(seed):
        control_features._reinitialized.cache_clear()
        source = Reinitialized(plain.checkpoint, plain.latents, seed=seed)
        return next(iter(GeneratorFeatures(source).maps("test", 0, 2)))

    first, again, other = features(0), features(0), features(1)
    taps = plain.generator().taps
    (trained,) = [f for f, _ in stream(plain, "test", 0, 2, taps)]
    for tap in taps:
        x = first[tap.name]
        assert (
            x.shape == trained[tap.name].shape == (2, tap.channels, tap.resolution, tap.resolution)
        )
        assert x.isfinite().all()
        assert torch.equal(x, again[tap.name])
        assert not torch.allclose(x, trained[tap.name], rtol=0.1)
        assert not torch.allclose(x, other[tap.name], rtol=0.1)
        assert (x[0] != x[1]).any(), "the sample still matters"
    after = plain.generator().state_dict()
    assert all(torch.equal(value, after[k]) for k, value in before.items())


def test_redrawing_keeps_each_tensors_mean_and_deviation(checkpoints):
    trained, drawn = (load_generator(checkpoints["mobile_stylegan"]) for _ in range(2))
    redraw(drawn, 0)
    for (name, a), b in zip(trained.named_parameters(), drawn.parameters(), strict=True):
        assert b.shape == a.shape and not torch.equal(a, b), name
        error = 5 * a.std() / a.numel() ** 0.5
        assert abs(a.mean() - b.mean()) < error and abs(a.std() - b.std()) < error, name
    assert torch.equal(trained.w_avg, drawn.w_avg)


def test_batch_norm_is_measured_on_the_redrawn_features(checkpoints, latents):
    control_features._reinitialized.cache_clear()
    source = Reinitialized(str(checkpoints["dcgan"]), str(latents["dcgan"]), seed=0)
    generator, ws = source.generator(), source.ws("train", 0, toys.SIZES["train"])
    norm = generator.blocks[1][1]
    inputs = []
    handle = norm.register_forward_hook(lambda module, args, output: inputs.append(args[0]))
    with torch.inference_mode():
        generator.synthesis(ws)
    handle.remove()
    torch.testing.assert_close(norm.running_mean, inputs[0].mean((0, 2, 3)), rtol=0.3, atol=0.05)
    assert not norm.training


def test_measured_differences_are_those_of_the_scores(placed, by_place):
    target = by_place["test/masks"]
    wrong = target.copy()
    wrong[:, :, :4] = 1
    report, costs = measure_controls(placed, SETTINGS, wrong, {"teacher": target}, 1)
    lse, rgb = report["lse"]["against_teacher"], report["rgb"]["against_teacher"]
    for protocol, found in report["rgb"]["lse_minus_control"]["against_teacher"].items():
        by_hand = lse[protocol]["mean"] - rgb[protocol]["mean"]
        assert found["mean"] == pytest.approx(by_hand, abs=2e-3)
        assert found["low"] <= found["mean"] <= found["high"]
        assert found["low"] > 20, "a good LSE is above color"
    assert set(costs) == {"rgb"} and costs["rgb"]["cpu_seconds"] >= 0


def test_an_unknown_control_is_named_before_any_work(placed, by_place):
    known = "rgb, fourier, fourier_rgb, random_conv, reinitialized"
    assert ", ".join(CONTROLS) == known
    with pytest.raises(InputError, match=f"control 'color'; wanted one of {known}"):
        settings = replace(SETTINGS, controls=("rgb", "color"))
        measure_controls(placed, settings, by_place["test/masks"], {}, 1)


def test_a_split_without_samples_is_named(placed):
    placed.pixels.plan.splits["validation"] = 0
    with pytest.raises(InputError, match="no samples in validation"):
        run_control("rgb", placed, SETTINGS, 1)


def test_two_processes_measure_what_one_does(placed):
    settings = Settings((0.01,), 5, 2000, ("random_conv",))
    one, facts = run_control("random_conv", placed, settings, 1)
    two, _ = run_control("random_conv", placed, settings, 2)
    np.testing.assert_array_equal(one, two)
    assert facts["channels"] == 316 + 3 + sum(c for _, c in levels(SIZE))


def test_the_stage_from_files_to_scores(placed, tmp_path, monkeypatch):
    from stages import measure_controls as stage
    from stages import run

    folder, masks = tmp_path, tmp_path / "masks.zarr.zip"
    test = {"test/masks": Group(masks).read("test", "masks")}
    for name in ("judge.zarr.zip", "lse.zarr.zip"):
        write_group(folder / name, test, {"classes": list(toys.CLASSES)})
    paths = [placed.source.checkpoint, placed.source.latents, placed.images, masks]
    paths += [
        folder / name for name in ("judge.zarr.zip", "pixels.json", "lse.zarr.zip", "out.json")
    ]
    paths.append(folder / "costs.json")
    words = "--controls fourier --controls reinitialized --l2 0.001 --l2 0.0001 --iterations 6"
    words += " --pixel_budget 2000 --seed 0 --compute float32 --device cpu --workers 1"
    monkeypatch.setattr(sys, "argv", ["measure_controls", *map(str, paths), *words.split()])
    with pytest.raises(SystemExit) as end:
        run(stage.measure_controls)
    assert not end.value.code
    report = json.loads((folder / "out.json").read_text())
    assert set(report) == {"lse", "fourier", "reinitialized"}
    assert set(json.loads((folder / "costs.json").read_text())) == {"fourier", "reinitialized"}
    assert report["lse"]["against_teacher"]["miou_dataset"]["mean"] == 100
    for name in ("fourier", "reinitialized"):
        found = report[name]
        assert set(found["lse_minus_control"]) == {"against_teacher", "against_judge"}
        assert found["l2"] in (0.001, 0.0001) and 5 <= found["iteration"] <= 6
    assert not report["reinitialized"]["bias"] and report["fourier"]["bias"]
    assert report["reinitialized"]["channels"] == placed.pixels.plan.facts["channels"]


def test_the_images_themselves_are_a_feature(tmp_path):
    images = random_images()
    write_group(tmp_path / "images.zarr.zip", images, {})
    features = ImageFeatures(str(tmp_path / "images.zarr.zip"), ("rgb",))
    found = torch.cat([part["rgb"] for part in features.maps("test", 1, 4)])
    assert torch.equal(found, to_float(images["test/images"][1:4]))
