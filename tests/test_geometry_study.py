import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import toys
from PIL import Image

from pipeline.analysis.geometry import centers as geometry
from pipeline.analysis.geometry import tap_fits
from pipeline.analysis.geometry.fair_sampling import SCALES, fair_similarity
from pipeline.analysis.geometry.options import Settings
from pipeline.analysis.geometry.study import SHARES, measure_geometry
from pipeline.data.arrays import Group, write_group
from pipeline.data.features import Source, fill, plan_pixels, stream
from pipeline.data.inputs import Study
from pipeline.data.pixels import hypercolumns
from pipeline.extractors.networks import LSE, NSE1
from pipeline.reporting import findings
from pipeline.reporting import geometry as reporting
from pipeline.reporting.curves import line_figure
from pipeline.runtime.errors import InputError

SIZES = {"train": 12, "validation": 4, "test": 5, "pool": 0}
NUM = len(toys.CLASSES)
SETTINGS = Settings(
    pixel_budget=12 * 128,
    l2=(1e-3,),
    iterations=12,
    layer_weight=0.1,
    greedy_taps=2,
    fair_pixels=10,
    fair_pool=40,
    fair_images=8,
    shown=2,
    seed=0,
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory, checkpoints):
    """A toy generator whose masks a planted LSE drew, and what is measured on it."""
    folder, checkpoint = tmp_path_factory.mktemp("geometry"), checkpoints["mobile_stylegan"]
    latents = toys.write_latents(folder / "latents.zarr.zip", checkpoint, SIZES)
    source = Source(str(checkpoint), str(latents))
    taps = source.generator().taps
    batches = [f for f, _ in stream(source, "train", 0, SIZES["train"], taps)]
    mean = torch.cat([torch.cat([f[t.name] for f in batches]).mean((0, 2, 3)) for t in taps])
    matrix = torch.randn(len(mean), NUM, generator=torch.Generator().manual_seed(7))
    planted = LSE(toys.CLASSES, taps)
    # Blind to the mean feature, else one class would cover nearly everything.
    planted.set_matrix(matrix - torch.outer(mean, mean @ matrix) / mean.square().sum())
    masks = {
        f"{split}/masks": np.concatenate(
            [planted.predict(f, 32) for f, _ in stream(source, split, 0, num, taps)]
            or [np.zeros((0, 32, 32), np.uint8)]
        )
        for split, num in SIZES.items()
    }
    write_group(folder / "masks.zarr.zip", masks, {"classes": list(toys.CLASSES)})
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (SIZES["test"], 3, 32, 32), np.uint8)
    write_group(folder / "images.zarr.zip", {"test/images": images}, {})
    facts = {
        "classes": list(toys.CLASSES),
        "num_classes": NUM,
        "taps": [vars(tap) for tap in taps],
        "channels": len(mean),
        "resolution": 32,
        "pixels_per_sample": 128,
        "align_corners": False,
    }
    splits = {split: SIZES[split] for split in ("train", "validation")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIPELINE_STORE", str(folder / "store"))
        plan = plan_pixels(facts, len(mean), "float16", splits, 8)
        store = fill(plan, source, taps, 1.0, 1, str(folder / "masks.zarr.zip"))
        study = Study(source, str(folder / "masks.zarr.zip"))
        report, pictures = measure_geometry(study, store, planted, SETTINGS, 1)
    return folder, study, store, planted, json.loads(json.dumps(report)), pictures


def test_the_planted_lse_is_perfect_and_the_rest_is_below_it(measured):
    report = measured[-2]
    assert report["lse"]["miou_per_image"]["mean"] > 99
    for kind in SCALES:
        share = report["centers"][kind]["of_lse"]["miou_per_image"]
        assert 0 < share["low"] <= share["mean"] <= share["high"] < 100
    whole = report["all"]["miou_per_image"]["mean"]
    assert whole > max(tap["alone"]["miou_per_image"]["mean"] for tap in report["taps"])
    assert [len(chosen["taps"]) for chosen in report["nested"]] == [1, 2]
    assert set(report["nested"][0]["taps"]) < set(report["nested"][1]["taps"])
    assert sum(len(group["taps"]) for group in report["resolutions"]) == len(report["taps"])


def test_center_masks_are_the_nearest_center_by_cosine(measured):
    """Whatever reads the LSE of the centers sees what normalizing every pixel would give."""
    _, study, _, _, _, pictures = measured
    rng = np.random.default_rng(3)
    centers = geometry.unit(rng.standard_normal((NUM, sum(t.channels for t in study.taps))))
    lse = LSE(study.classes, study.taps)
    lse.set_matrix(torch.from_numpy(centers.T).float())
    features, _ = next(stream(study.source, "test", 0, 1, study.taps))
    sample = [features[tap.name][0] for tap in study.taps]
    x = hypercolumns(sample, np.arange(32 * 32), 32, False).numpy()
    nearest = geometry.cosines(x, centers).argmax(1).reshape(32, 32)
    assert (lse.predict(features, 32)[0] == nearest).mean() > 0.999
    assert pictures["centers_raw/masks"].shape == (2, 32, 32)


def test_fair_pools_and_cosines_are_of_the_masks(measured):
    _, study, _, _, report, _ = measured
    found = report["similarity"]
    masks = Group(study.masks).read("train", "masks")
    areas = np.stack([np.bincount(mask.ravel(), minlength=NUM) for mask in masks])
    plan = geometry.fair_plan(areas, 10, 40, 8)
    assert found["images"] == len(plan) <= 8
    for k, name in enumerate(study.classes):
        assert found["pools"][name] == 10 * sum(k in draw.classes for draw in plan)
    matrix = np.array(found["raw"]["cosines"], float)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-4)
    assert (np.abs(matrix) <= 1).all()


def test_detectors_name_a_channel_of_a_tap(measured):
    _, study, _, _, report, _ = measured
    taps = {tap.name: tap for tap in study.taps}
    assert set(report["detectors"]) <= set(study.classes) and report["detectors"]
    for best in report["detectors"].values():
        assert 0 <= best["channel"] < taps[best["tap"]].channels
        assert 0 < best["iou"] < 100 and best["on"] in SHARES


def test_detectors_are_those_of_the_stored_pixels(measured):
    """Chosen on training pixels, scored on validation pixels; named by tap and index in it."""
    _, study, store, _, report, _ = measured
    read = tap_fits.read(store, SETTINGS.pixel_budget, "cpu")
    drawn = [geometry.Drawn(c.x.float().numpy(), c.y.numpy(), c.weights.numpy()) for c in read]
    found = geometry.detectors(*drawn, NUM, SHARES)
    channels = [(tap.name, i) for tap in study.taps for i in range(tap.channels)]
    for name, best in zip(study.classes, found, strict=True):
        if best is not None:
            said = report["detectors"][name]
            assert (said["tap"], said["channel"]) == channels[best.channel]
            assert said["on"] == best.share and said["iou"] == round(100 * best.iou, 3)


def test_an_lse_of_another_study_is_one_sentence(measured):
    _, study, store, planted, _, _ = measured
    other = LSE(("bg", "cat"), planted.taps)
    for wrong, message in (
        (other, "an LSE of .* classes bg, cat; wanted"),
        (LSE(toys.CLASSES, planted.taps, bias=True), "with a bias"),
        (NSE1(toys.CLASSES, planted.taps), "NSE1"),
    ):
        with pytest.raises(InputError, match=message):
            measure_geometry(study, store, wrong, SETTINGS, 1)


def test_no_taps_to_select_is_one_sentence(measured):
    _, study, store, planted, _, _ = measured
    with pytest.raises(InputError, match="greedy_taps 0 and shown 2"):
        measure_geometry(study, store, planted, replace(SETTINGS, greedy_taps=0), 1)


def test_pools_of_too_large_parts_are_one_sentence(measured):
    study = measured[1]
    scale = np.ones(sum(tap.channels for tap in study.taps), np.float32)
    with pytest.raises(InputError, match="no training image with 2000 pixels of a class"):
        settings = replace(SETTINGS, fair_pixels=2000, fair_pool=4000)
        fair_similarity(study, scale, settings, 1)


def test_tables_findings_and_figures(measured, tmp_path):
    folder, _, _, _, report, pictures = measured
    metrics = {"toy": {"geometry": report}, "none": {}}
    tables = {name: table for name, _, _, table in reporting.all_tables(metrics)}
    assert all(set(table["study"]) == {"toy"} for table in tables.values())
    claims = tables["geometry_claims"].set_index("claim")
    assert set(claims["held"]) <= {"yes", "no"} and len(claims) == 3
    taps = tables["geometry_taps"]
    assert len(taps) == len(report["taps"]) + 1 + sum(
        len(group["taps"]) > 1 for group in report["resolutions"]
    )
    sizes = tables["geometry_nested"]["MB"].tolist()
    assert sizes == sorted(sizes)
    detecting = tables["geometry_detectors"].set_index("class")
    assert set(detecting.index) == set(report["detectors"])
    for name, best in report["detectors"].items():
        row = detecting.loc[name, ["tap", "channel", "on, % of pixels", "IoU of the channel"]]
        assert row.tolist() == [best["tap"], best["channel"], 100 * best["on"], best["iou"]]
    said = reporting.findings(metrics["toy"]) + findings.few_taps(metrics["toy"])
    assert len(said) == 4
    value = report["claims"]["own_is_maximum"]["mean"]
    assert any(f"classes of which this is true, {value:.1f} %" in line for line in said)

    write_group(tmp_path / "geometry.zarr.zip", pictures, {"classes": list(toys.CLASSES)})
    files, shown = metrics["toy"], (tmp_path / "geometry.zarr.zip", folder / "images.zarr.zip")
    line_figure(tmp_path / "taps_lines.png", reporting.panels(files))
    reporting.draw_cosines(files, tmp_path / "cosines.png")
    reporting.draw_masks(*shown, folder / "masks.zarr.zip", tmp_path / "centers.png")
    reporting.draw_taps(*shown, folder / "masks.zarr.zip", files, tmp_path / "taps.png", 2)
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 200, path
    assert reporting.panels({}) == reporting.findings({}) == findings.few_taps({}) == []


def test_claims_follow_their_rules():
    """A tap at an end, or an interval around zero, does not hold."""
    found = {
        "claims": {
            "centers_segment": {"mean": 40.0, "low": 35.0, "high": 51.0, "held": False}
            | {"enough": 50.0},
            "own_is_maximum": {"mean": 100.0, "low": 90.0, "high": 100.0, "held": True},
            "middle_taps_richest": {"mean": 5.0, "low": 1.0, "high": 9.0, "held": True}
            | {"tap": "16px", "end": "32px"},
        }
    }
    metrics = {"toy": {"geometry": found}}
    table = reporting.claims_table(metrics)
    assert table["held"].tolist() == ["no", "yes", "yes"]
    assert table["held if"][0] == "the interval is above 50"
