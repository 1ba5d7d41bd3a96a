"""Catalogs, scores at matched In-MSE, and the stage at toy size."""

import json

import numpy as np
import pytest
import toys

from pipeline.data.arrays import Group, write_group
from pipeline.data.features import Source, plan_features
from pipeline.data.stores import Store
from pipeline.editing.style import scores as scores
from pipeline.editing.style import tasks
from pipeline.editing.style.catalog import (
    Catalog,
    Scaler,
    at_size,
    build_catalog,
    candidates,
    mean_iou,
    read_catalog,
    write_catalog,
)
from pipeline.editing.style.options import ClusterRule, Plan, parse_parts
from pipeline.editing.style.plan import choose_pairs, class_groups
from pipeline.extractors.networks import LSE, save_extractor
from pipeline.generators.registry import load_generator
from pipeline.generators.taps import Tap
from pipeline.reporting import style, tables
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json, write_json
from pipeline.runtime.weights import read_safetensors, write_safetensors
from stages import flatten
from stages.cache_features import cache_features
from stages.edit_style import edit_style

# A catalog of planted activations

TAPS = (Tap("a", "a", 6, 4), Tap("b", "b", 8, 8), Tap("c", "c", 8, 8))
SIZES = {"train": 6, "validation": 3, "test": 3}
CLASSES = ("bg", "skin", "nose", "hair")
SIDE = 16


@pytest.fixture
def planted(tmp_path, store_root):
    """A store whose tap b shows each pixel's class, two directions for class 1, and whose tap a is
    noise; and the masks.
    """
    store, masks = Store(plan_features({}, TAPS, "int8", SIDE, SIZES, 3)), {}
    store.create()
    rng = np.random.default_rng(0)
    directions = 10 * np.linalg.qr(rng.normal(size=(8, 8)))[0][:5]
    for shard in store.plan.shards():
        num = shard.stop - shard.start
        arrays = {}
        for array in store.plan.arrays:
            drawn = rng.normal(size=(num, *array.shape))
            arrays[array.name] = (20 * drawn).clip(-127, 127).astype(array.dtype)
        known = rng.integers(0, 5, (num, 8, 8))  # 4 is the other direction of class 1
        arrays["b"] = np.rint(10 * directions[known]).astype(np.int8)
        for name in "abc":
            arrays[f"{name}.scale"] = np.full((num, arrays[name].shape[-1]), 0.1, np.float32)
        store.write(shard, arrays)
        mask = at_size(np.where(known == 4, 1, known).astype(np.uint8), SIDE)
        masks.setdefault(f"{shard.split}/masks", []).append(mask)
    path = tmp_path / "masks.zarr.zip"
    write_group(path, {n: np.concatenate(m) for n, m in masks.items()}, {"classes": list(CLASSES)})
    return store, Group(path)


# A class has a fifth of the pixels, so the union of all clusters has an IoU of .2 by chance.
RULE = ClusterRule(cluster_samples=6, held_out=3, restarts=5, normalization="dataset", min_iou=0.5)
GROUPS = {"skin": [1], "nose": [2], "hair": [3], "face": [1, 2]}


@pytest.mark.parametrize("normalization", ["image", "dataset"])
def test_planted_classes_are_named(planted, normalization):
    rule = ClusterRule(cluster_samples=6, held_out=3, restarts=5, normalization=normalization)
    found = build_catalog(*planted, GROUPS, "b", 5, rule)
    assert len(found.unions["skin"]) == 2 and len(found.unions["hair"]) == 1
    assert sorted(found.unions["face"]) == sorted(found.unions["skin"] + found.unions["nose"])
    for split in SIZES:
        assert min(found.iou[split].values()) > 0.95, split
        assert found.single[split]["skin"] < 0.8 < found.single[split]["nose"]
    assert sorted(found.majority) == [0, 1, 1, 2, 3] and min(found.purity) > 0.95


def test_noise_has_no_names_and_the_informed_layer_is_chosen(planted):
    noise = build_catalog(*planted, GROUPS, "a", 5, RULE)
    assert noise.unions["hair"] == [] and noise.iou["test"]["hair"] == 0
    informed = build_catalog(*planted, GROUPS, "b", 5, RULE)
    assert mean_iou(informed, CLASSES[1:]) > 0.9 > mean_iou(noise, CLASSES[1:])


def test_a_class_that_never_occurs_has_no_score(planted):
    found = build_catalog(*planted, GROUPS | {"none": []}, "b", 5, RULE)
    assert found.iou["test"]["none"] is None and found.unions["none"] == []
    assert mean_iou(found, ["nose", "none"]) == found.iou["validation"]["nose"]


def test_candidates_are_the_first_taps_of_their_resolution(planted):
    assert candidates(planted[0], (4, 8)) == ["a", "b"]
    with pytest.raises(InputError, match="resolution 32; wanted one of the cached taps': 4, 8"):
        candidates(planted[0], (4, 32))


@pytest.mark.parametrize("normalization", ["image", "dataset"])
def test_a_catalog_is_plain_data_and_comes_back(planted, tmp_path, normalization):
    rule = ClusterRule(cluster_samples=6, held_out=3, restarts=1, normalization=normalization)
    made = build_catalog(*planted, GROUPS, "b", 5, rule)
    write_catalog(tmp_path, made, {"s": np.full((5, 3), 0.5)}, {"generator": "x"})
    assert sorted(path.name for path in tmp_path.glob("catalog*")) == [
        "catalog.json",
        "catalog.npz",
    ]
    with np.load(tmp_path / "catalog.npz", allow_pickle=False) as file:
        assert "contributions/s" in file
    read, contributions = read_catalog(tmp_path)
    assert isinstance(read, Catalog) and contributions["s"].shape == (5, 3)
    maps = np.random.default_rng(3).normal(size=(2, 8, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(read.label(maps), made.label(maps))
    assert read.unions == made.unions and read.iou == made.iou


def test_scaled_maps_have_no_mean_and_unit_variance():
    maps = np.random.default_rng(0).normal(3, 5, (4, 6, 6, 2)).astype(np.float32)
    maps[..., 1] = 7  # constant
    for normalization, axes in (("image", (1, 2)), ("dataset", (0, 1, 2))):
        found = Scaler.of(maps, normalization)(maps)
        np.testing.assert_allclose(found[..., 0].mean(axes), 0, atol=1e-5)
        np.testing.assert_allclose(found[..., 0].std(axes), 1, rtol=1e-5)
        np.testing.assert_array_equal(found[..., 1], 0)


@pytest.mark.parametrize("size", [2, 4, 6, 8])
def test_ids_at_another_size(size):
    labels = np.arange(16, dtype=np.uint8).reshape(1, 4, 4)
    found = at_size(labels, size)
    assert found.shape == (1, size, size) and found[0, 0, 0] == 0
    if size == 8:
        np.testing.assert_array_equal(found, labels.repeat(2, 1).repeat(2, 2))


# Plans


def test_parts_and_their_classes():
    parts = parse_parts(["face=skin,nose", "hair=hair"])
    assert parts == {"face": ("skin", "nose"), "hair": ("hair",)}
    assert class_groups(CLASSES, parts) == {"skin": [1], "nose": [2], "hair": [3], "face": [1, 2]}
    for text in ("face", "=skin", "face="):
        with pytest.raises(InputError, match="got part"):
            parse_parts([text])
    with pytest.raises(InputError, match="class 'ear' of part x"):
        class_groups(CLASSES, {"x": ("ear",)})
    with pytest.raises(InputError, match="part 'hair', which is a class"):
        class_groups(CLASSES, {"hair": ("skin",)})


def test_the_control_is_asked_for_style_methods_only():
    plan = Plan((), epsilons=(1, 2), lambdas=(3,), interpolations=(0.5,))
    control = plan.keys("control", ["nose"])
    methods = ("sequential", "sequential", "simultaneous", "global")
    assert [key[1] for key in control] == list(methods)
    trained = {method for _, method, _ in plan.keys("trained", ["nose"])}
    assert trained - set(methods) == {"sequential_lse", "blend_32", "blend_64", "poisson"}


def test_pairs_show_every_part_and_form_a_ring():
    masks = np.zeros((5, 20, 20), np.uint8)
    for row in (0, 2, 4):
        masks[row, :5], masks[row, 5:9] = 1, 2
    masks[1, :5] = 1
    parts = {"a": [1], "b": [2]}
    assert choose_pairs(masks, parts, 9) == [(0, 2), (2, 4), (4, 0)]
    assert choose_pairs(masks, parts, 2) == [(0, 2), (2, 0)]
    with pytest.raises(InputError, match="1 test samples that show a"):
        choose_pairs(masks[:2], parts, 9)


# Scores


@pytest.mark.parametrize(
    "level, known",
    [(0.0, 0.0), (5.0, 1.0), (10.0, 2.0), (20.0, 12.0), (30.0, 22.0), (30.1, None)],
    ids=["start", "from nothing", "a point", "between", "the end", "beyond"],
)
def test_values_where_a_curve_reaches_a_level(level, known):
    found = scores.at_level(np.array([30.0, 10.0]), np.array([22.0, 2.0]), level)
    assert found == known


KEYS = [("nose", "sequential", 1.0), ("nose", "sequential", 2.0), ("nose", "global", 1.0)]


def piece(inside, outside, reference=(100.0, 50.0)):
    maps = np.stack([np.full((2, 2), value, np.float32) for value in outside])
    return {
        "inside": np.array(inside, float),
        "outside": np.array(outside, float),
        "reference": np.array([reference]),
        "maps": maps,
    }


def test_methods_are_compared_at_the_same_in_mse():
    pieces = [piece([10, 40, 100], [1, 8, 50]), piece([20, 20, 100], [2, 2, 50])]
    found = scores.matched(KEYS, ["nose"], pieces, 0.25)["nose"]
    np.testing.assert_allclose(found["global"], [12.5, 12.5])
    np.testing.assert_allclose(found["sequential"], [4.5, np.nan])
    maps = scores.matched_maps(KEYS, ["nose"], pieces, 0.25)
    np.testing.assert_allclose(maps["nose", "sequential"], 4.5)
    np.testing.assert_allclose(maps["nose", "global"], 12.5)


def test_curves_are_means_and_shares_of_the_reference():
    pieces = [piece([10, 40, 100], [1, 8, 50]), piece([30, 60, 300], [3, 8, 150], (300.0, 150.0))]
    points = scores.curves(KEYS, ["nose"], pieces)["nose"]
    first = {"strength": 1.0, "in_mse": 20, "out_mse": 2, "in_share": 0.1, "out_share": 0.02}
    assert points["sequential"][0] == first
    assert points["global"][0]["in_share"] == points["global"][0]["out_share"] == 1


def test_ratios_and_what_training_adds():
    trained = {"sequential": np.array([1.0, 2.0, 4.0]), "global": np.array([10.0, 20.0, 40.0])}
    trained["poisson"] = np.zeros(3)
    control = {"sequential": np.array([4.0, 8.0, np.nan]), "global": np.array([10.0, 20.0, 30.0])}
    found = scores.summarize({"trained": {"nose": trained}, "control": {"nose": control}})
    cell = found["matched"]["trained"]["nose"]["sequential"]
    assert cell["out_mse"]["mean"] == pytest.approx(7 / 3, abs=1e-4)
    assert cell["out_mse"]["low"] <= 7 / 3 <= cell["out_mse"]["high"]
    assert cell["ratio"] == {"pairs": 3, "mean": 0.1, "low": 0.1, "high": 0.1}
    against = found["against_control"]["nose"]["sequential"]
    assert against == {"pairs": 2, "mean": 0.25, "low": 0.25, "high": 0.25}
    poisson = found["matched"]["trained"]["nose"]["poisson"]
    assert poisson["out_mse"]["mean"] == 0 and poisson["ratio"]["pairs"] == 0
    json.dumps(found, allow_nan=False)


# The stage


OPTIONS = {
    "parts": ["nose=nose", "top=hair,skin"],
    "pairs": 2,
    "samples": 2,
    "resolutions": [4, 8],
    "counts": [3],
    "cluster_samples": 4,
    "held_out": 2,
    "restarts": 1,
    "normalization": "image",
    "resampling": "area",
    "min_iou": 0.01,
    "epsilons": [50.0, 400.0],
    "lambdas": [2.0, 9.0],
    "interpolations": [0.5, 1.0],
    "contribution_threshold": 0.0,
    "coarse_share": 1.0,
    "matched_share": 0.1,
    "paper_sizes": False,
    "seed": 0,
    "compute": "float32",
    "device": "cpu",
    "workers": 1,
}


@pytest.fixture
def study(tmp_path, checkpoints, latents, masks):
    """The files of a toy study, as the stage takes them."""

    def files(family):
        folder = tmp_path / family
        folder.mkdir()
        network = load_generator(checkpoints[family])
        paths = {"checkpoint": checkpoints[family], "latents": latents[family]}
        paths |= {"images": folder / "images.zarr.zip", "masks": masks}
        paths |= {"features": folder / "features.json", "extractor": folder / "lse.safetensors"}
        paths |= {"full": folder / "lse.json", "styled": folder / "style"}
        paths["metrics"] = folder / "style.json"
        shape = {"label_size": 32, "max_tap_resolution": 16, "samples_per_shard": 4, "max_gib": 1}
        how = {"stored": "float16", "compute": "float32", "device": "cpu", "workers": 1}
        known = (paths["checkpoint"], paths["latents"], paths["features"], paths["images"])
        flatten(cache_features)(*known, **shape, **how)
        lse = LSE(toys.CLASSES, network.taps[:3])  # its weights are of no matter here
        save_extractor(paths["extractor"], lse, {})
        per_class = dict.fromkeys(toys.CLASSES, 80.0)
        write_json(paths["full"], {"against_teacher": {"miou_dataset": {"per_class": per_class}}})
        return paths

    return files


@pytest.mark.parametrize(
    "family, layers",
    [
        ("mobile_stylegan", ["4px", "8px_conv1"]),
        ("stylegan", ["4px_conv1", "8px_conv1"]),
        ("stylegan2", ["4px_conv2", "8px_conv1"]),
    ],
)
def test_the_stage_edits_and_scores_and_goes_on_after_a_kill(
    study, store_root, monkeypatch, family, layers
):
    paths = study(family)
    whole = tasks.edit_pair
    calls = []

    def killed(*words):
        calls.append(words[2])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(*words)

    monkeypatch.setattr(tasks, "edit_pair", killed)
    with pytest.raises(KeyboardInterrupt):
        flatten(edit_style)(**paths, **OPTIONS)
    assert not paths["metrics"].exists() and not paths["styled"].exists()
    kept = list((store_root / "pieces" / "style_edits").glob("*.npz"))
    assert len(kept) == 2, "contributions of the trained generator and of the control"
    monkeypatch.setattr(tasks, "edit_pair", whole)
    monkeypatch.setattr(tasks, "measure_contributions", None)  # nothing is measured twice
    flatten(edit_style)(**paths, **OPTIONS)

    found = read_json(paths["metrics"])
    assert found["layer"] in layers and found["left_out"] == []
    assert [c["layer"] for c in found["candidates"]] == layers
    assert set(found["parts"]) == {"nose", "top"} and found["classes"]["nose"]["lse"] == 80.0
    courses = found["curves"]["trained"]["nose"]
    assert set(courses) == set(style.METHODS)
    end = courses["global"][-1]
    if family == "stylegan":  # its biases stay
        assert 1 != end["in_share"] > 0 < end["out_share"] != 1
    else:
        assert end["in_share"] == 1 == end["out_share"]
    assert courses["poisson"][0]["out_mse"] == 0
    assert courses["simultaneous"][0]["in_mse"] < end["in_mse"]
    assert set(found["curves"]["control"]["nose"]) == {"sequential", "simultaneous", "global"}

    catalog, contributions = read_catalog(paths["styled"])
    network = load_generator(paths["checkpoint"])
    assert set(contributions) == {s.name for s in network.styles}
    for s in network.styles:
        sums = contributions[s.name].sum(0)
        assert contributions[s.name].shape == (len(catalog.centroids), s.channels)
        assert np.all(np.isclose(sums, 1, atol=1e-4) | (sums == 0))
    draw(paths, found)


def draw(paths, found):
    """Figures and tables of what the stage wrote."""
    figures = paths["styled"].with_name("figures")
    style.draw_study(paths["styled"], {"style": found}, figures, 2)
    names = ("style", "style_clusters", "style_heat", "style_curves")
    assert {p.name for p in figures.iterdir()} == {f"{name}.png" for name in names}
    metrics = {"toy": {"style": found}, "other": {"style": {"skipped": "x has none"}}, "new": {}}
    every = {name: (note, table) for name, _, note, table in style.all_tables(metrics)}
    table = every["style"][1]
    assert table["part"][table["study"] == "other"].tolist() == ["skipped: x has none"]
    assert set(table["study"]) == {"toy", "other"}
    trained = table[(table["generator"] == "trained") & (table["part"] == "nose")]
    assert list(trained["method"]) == [one.title for one in style.METHODS.values()]
    assert every["style_catalog"][1]["class"].tolist()[-2:] == ["part: nose", "part: top"]
    assert (every["style_layers"][1]["chosen"] == "yes").sum() == 1
    for name, (_, table) in every.items():
        tables.write_table(table, paths["styled"].with_name(name), "t", "n")


def test_contributions_do_not_depend_on_the_set_of_taps(tmp_path, checkpoints, latents):
    """A StyleGAN that is read through its second convolutions has all of its styles."""
    tensors, facts = read_safetensors(checkpoints["stylegan"])
    few = tmp_path / "few.safetensors"
    write_safetensors(few, tensors, facts | {"tap_set": "second_conv"})
    memberships = {"half": (np.arange(2 * 16 * 16, dtype=np.uint8).reshape(2, 16, 16) // 128, 2)}
    known, found = (
        tasks.measure_contributions(source, memberships, "image", "area", 32)
        for path in (checkpoints["stylegan"], few)
        if (source := Source(str(path), str(latents["stylegan"])))
    )
    assert len(load_generator(few).taps) == 4 and len(found[0]) == 8 and found[1] == known[1]
    assert all(np.array_equal(found[0][name], matrix) for name, matrix in known[0].items())


@pytest.mark.parametrize("family", ["dcgan", "pggan"])
def test_a_family_without_styles_is_skipped(study, family):
    paths = study(family)
    flatten(edit_style)(**paths, **OPTIONS)
    assert f"{family} has no style scales" in read_json(paths["metrics"])["skipped"]
    assert list(paths["styled"].iterdir()) == [paths["styled"] / "catalog.json"]
    style.draw_study(paths["styled"], {}, paths["styled"].with_name("figures"), 2)
    assert not paths["styled"].with_name("figures").exists()


@pytest.mark.parametrize(
    "change, said",
    [
        ({"parts": ["nose=beak"]}, "class 'beak' of part nose"),
        ({"paper_sizes": True}, "200 samples for contributions; wanted 1 to 5"),
        ({"samples": 99}, "99 samples for contributions; wanted 1 to 5"),
        ({"min_iou": 1.0}, "clusters that are none of nose, top"),
        ({"resolutions": [64]}, "cluster resolution 64"),
        ({"counts": [5000]}, "vectors for 5000 clusters"),
        ({"normalization": "batch"}, "one of image, dataset"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_input_is_said(study, change, said):
    paths = study("mobile_stylegan")
    with pytest.raises(InputError, match=said):
        flatten(edit_style)(**paths, **OPTIONS | change)
    assert not paths["metrics"].exists()
