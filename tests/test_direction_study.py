"""What directions change: scores from masks, a study that resumes, a traversal of one's own."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import toys
from PIL import Image

from pipeline.data.arrays import Group, write_group
from pipeline.data.features import Source
from pipeline.editing.directions import probes as direction_probes
from pipeline.editing.directions.boundaries import boundaries_report, draw_boundaries
from pipeline.editing.directions.mask_changes import (
    NAMELESS,
    Seen,
    areas,
    centroids,
    colors,
    ious,
    mean_seen,
    name_of,
    overall_selectivity,
    poses,
    selectivity,
    statistic_names,
    structure_change,
    z_scores,
)
from pipeline.editing.directions.method import Factors, random_directions
from pipeline.editing.directions.options import Plan, Traversal, View
from pipeline.editing.directions.probes import Prober, measure, trait_names
from pipeline.editing.directions.report import (
    left_out_scores,
    obvious_shares,
    range_report,
    spearman,
)
from pipeline.editing.directions.study import open_setup, run_study, write_study
from pipeline.editing.directions.traversal import Directions, traverse_file
from pipeline.editing.options import Start
from pipeline.extractors.networks import LSE, save_extractor
from pipeline.generators.registry import load_generator
from pipeline.reporting.directions import all_tables, draw_study, findings, write_strip
from pipeline.reporting.tables import fold
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json
from stages import flatten
from stages.find_directions import find_directions
from stages.traverse_direction import traverse_direction

GOLDEN = json.loads((Path(__file__).parent / "data" / "directions.json").read_text())


def golden_mask(a: int) -> np.ndarray:
    r, c = np.ogrid[:16, :16]
    mask = np.broadcast_to(c < 8 + 2 * a, (16, 16)).astype(np.uint8)
    mask[(r - 8) ** 2 + (c - 8) ** 2 < (3 + a) ** 2] = 2
    return mask[None]


def test_scores_from_masks_are_the_published_ones():
    wanted, masks = GOLDEN["mask_rescoring"], {a: golden_mask(a) for a in (-1, 0, 1)}
    for a, mask in masks.items():
        step = wanted["steps"][str(a)]
        np.testing.assert_allclose(areas(mask, 3)[0], step["area"])
        np.testing.assert_allclose(centroids(mask, 3)[0], step["centroid"])
        np.testing.assert_allclose(ious(mask, masks[0], 3)[0], step["iou_vs_0"])
    change = (areas(masks[1], 3) - areas(masks[-1], 3))[0] / 2
    np.testing.assert_allclose(change, wanted["dA_per_unit"])
    ratio = np.log(areas(masks[1], 3) / areas(masks[-1], 3))[0] / 2
    np.testing.assert_allclose(ratio, wanted["log_area_ratio"])
    assert structure_change(masks[1], masks[0], 3)[0] == pytest.approx(wanted["structure_change"])
    shift = (centroids(masks[1], 3) - centroids(masks[-1], 3))[0, :, 1] / 2
    np.testing.assert_allclose(shift, wanted["centroid_shift_c"])


def test_selectivity_is_the_published_one():
    wanted = GOLDEN["selectivity"]
    scores = np.array(wanted["absZ"])
    np.testing.assert_allclose(selectivity(scores), wanted["per_direction"])
    np.testing.assert_allclose(selectivity(-scores), wanted["per_direction"])
    assert overall_selectivity(scores) == pytest.approx(wanted["overall"])


@pytest.mark.parametrize(
    ("scores", "wanted"),
    [
        ([0.0, 7.0, 0.0], 1.0),  # one class
        ([-2.0, 2.0, 2.0], 0.0),  # all alike
        ([np.nan, 3.0, 0.0], 1.0),  # a class that is never seen does not count
        ([0.0, 0.0, 0.0], np.nan),  # no effect, no selectivity
        ([np.nan, np.nan, np.nan], np.nan),  # nothing to compare with
    ],
)
def test_selectivity_of_extremes(scores, wanted):
    assert selectivity(np.array([scores]))[0] == pytest.approx(wanted, nan_ok=True)
    assert overall_selectivity(np.array([scores])) == pytest.approx(wanted, nan_ok=True)


def test_a_class_that_is_not_seen_has_no_place_and_no_color():
    mask = np.zeros((1, 8, 8), np.uint8)
    assert np.isnan(centroids(mask, 2)[0, 1]).all()
    assert np.isnan(colors(np.zeros((1, 3, 8, 8)), mask, 2)[0, 1]).all()
    assert np.isnan(ious(mask, mask, 2)[0]).tolist() == [False, True]
    assert structure_change(mask, mask, 2)[0] == 0
    assert mean_seen(np.array([[np.nan, 1.0], [np.nan, 3.0]]), 0).tolist() == pytest.approx(
        [np.nan, 2], nan_ok=True
    )


def test_a_pose_is_the_nose_from_the_face_in_units_of_its_size():
    mask = np.zeros((1, 40, 40), np.uint8)
    mask[0, 10:30, 10:30] = 1  # skin, centered at 19.5
    mask[0, 19:21, 24:26] = 2  # nose 5 px to the right
    found = poses(mask, ("bg", "skin", "nose"))[0]
    assert found[0] == pytest.approx(0, abs=1e-9)
    assert found[1] == pytest.approx(5 / 20)
    assert np.isnan(poses(mask, ("bg", "bed", "wall"))).all(), "no nose, no pose"


def test_statistics_stand_where_their_names_say():
    classes = ("bg", "skin", "nose")
    masks = np.zeros((2, 20, 20), np.uint8)
    masks[:, 4:8, 10:14] = 1
    masks[:, 4, 10] = 2  # a pixel of 400 is enough
    lab = np.zeros((1, 3, 20, 20))
    lab[:, 1, 4:8, 10:14] = 30
    lab[:, 1, 4, 10] = 70
    found = dict(zip(statistic_names(classes), Seen(masks, lab).statistics(classes).T, strict=True))
    assert found["skin area"].tolist() == [15 / 400] * 2
    assert found["nose right"].tolist() == [0.5] * 2 and found["nose down"].tolist() == [0.2] * 2
    assert found["skin redness"][0] == 30 and found["nose redness"][0] == 70
    assert np.isnan(found["skin redness"][1]), "no image, no color"
    assert found["face: nose down"][0] < 0, "above the middle of the face"
    few = np.zeros((1, 60, 60), np.uint8)
    few[0, 0, :7] = 1  # of 3600 pixels: too small a class for a place
    found = Seen(few, np.zeros((0, 3, 60, 60))).statistics(classes)[0]
    assert found[1] == 7 / 3600
    assert np.isnan(found[statistic_names(classes).index("skin down")])


def test_random_directions_have_unit_variance_in_their_own_z():
    rng = np.random.default_rng(0)
    control = rng.normal(3, [0.1, 5, 1], (50, 3))
    control[:, 2] = 1.0  # no spread: nothing to compare with
    z = z_scores(control, control)
    np.testing.assert_allclose(z[:, :2].mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(z[:, :2].std(0, ddof=1), 1)
    assert np.isnan(z[:, 2]).all()
    left_out = left_out_scores(control)[:, 0]
    assert np.abs(left_out).max() > np.abs(z[:, 0]).max(), "not diluted by itself"


@pytest.mark.parametrize(
    ("scores", "sure", "name"),
    [
        ([1.0, -4.06, np.nan], [0.5, 2.0, 0], "b -, 4.1 sd"),
        ([9.0, 4.0, 0.0], [0.0, 3.0, 0], "b +, 4.0 sd"),  # a's 9 come from a single sample
        ([2.0, -2.5, 0.0], [1.9, 2.4, 0], NAMELESS),  # as random directions do
        ([9.0, -9.0, 0.0], [0.0, 0.0, 0], NAMELESS),
    ],
)
def test_a_direction_is_named_by_its_surest_effect_beyond_chance(scores, sure, name):
    assert name_of(np.array(scores), np.array(sure), "abc", 3.0)[0] == name


CLASSES = ("bg", "skin", "nose")


def planted(count: int, seed: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Changes of directions without effect: noise about 0."""
    rng, names = np.random.default_rng(seed), statistic_names(CLASSES)
    return {
        "effects": rng.normal(0, scale, (count, 6, len(names))),
        "mask_change": rng.uniform(0.1, 0.2, (count, 6)),
        "image_change": rng.uniform(1, 2, (count, 4)),
    }


def test_a_report_tells_a_planted_effect_from_chance():
    top, control = planted(12, 0), planted(40, 1)
    top["effects"][2, :, statistic_names(CLASSES).index("skin area")] += 8
    size = np.linspace(12, 1, 12)  # changes that follow the eigenvalues
    top["image_change"] += 0.5 * size[:, None]
    factors = Factors(np.eye(12), size)
    report = range_report(factors, np.ones(12), top, control, CLASSES, 1.5, 4)
    assert report["names"][2].startswith("skin area +")
    assert report["named"] <= 3 and report["directions"][0]["name"] == report["names"][0]
    assert report["directions"][2]["selectivity"] > 0.3
    assert report["directions"][2]["z"]["area"]["skin"] > 10
    premise = report["premise"]
    assert premise["image"]["mean"] > 0.9 and premise["image"]["low"] > 0.6
    assert premise["mask"]["low"] < 0 < premise["mask"]["high"], "no relation was planted"
    assert report["obvious"]["sefa"]["image"] == pytest.approx(10 / 12, abs=0.1)
    assert report["obvious"]["random"]["either"] == 0
    assert report["trace"] == pytest.approx(size.sum())


def test_areas_that_never_change_have_no_selectivity():
    top, control = planted(3, 0), planted(8, 1)
    for changes in (top, control):
        changes["effects"][..., : len(CLASSES)] = 0  # areas come first
    report = range_report(Factors(np.eye(3), np.ones(3)), np.ones(3), top, control, CLASSES, 1, 1)
    assert report["selectivity"] == {"sefa": dict.fromkeys(("mean", "low", "high")), "random": None}
    json.dumps(report, allow_nan=False)


def test_obvious_is_measured_against_random_directions():
    top, control = planted(4, 0), planted(10, 1)
    control["mask_change"][:], control["image_change"][:] = 0.1, 2.0
    top["mask_change"][:] = np.array([0.16, 0.1, 0.14, 0.2])[:, None]
    top["image_change"][:] = np.array([1.0, 3.5, 1.0, 3.5])[:, None]
    found = obvious_shares(top, control, 1.5)
    assert found["limits"] == {"mask": 0.15, "image": 3.0}
    assert found["sefa"] == {"mask": 0.5, "image": 0.5, "either": 0.75}
    assert found["random"] == {"mask": 0.0, "image": 0.0, "either": 0.0}


def test_ranks_correlate():
    x = np.array([1.0, 2, 3, 4])
    assert spearman(x, np.exp(x)) == pytest.approx(1)
    assert spearman(x, -(x**3)) == pytest.approx(-1)
    assert spearman(x, np.ones(4)) == 0, "nothing varies"


def test_boundaries_find_a_planted_trait_and_not_a_shuffled_one():
    rng, basis = np.random.default_rng(0), np.eye(40)
    w = rng.standard_normal((2000, 40)) * np.linspace(3, 0.3, 40)  # as w, of unequal spread
    traits = np.stack([w @ basis[7], rng.permutation(w @ basis[7]), np.full(2000, np.nan)], 1)
    names = ["planted area", "noise area", "unseen area"]
    found = draw_boundaries(w, traits, names, 0.05, 0.1)
    assert [one.trait for one in found] == names[:2], "a trait that no sample shows is left out"
    held = rng.standard_normal((300, 40)) * np.linspace(3, 0.3, 40)
    own = np.stack([held @ basis[7], rng.standard_normal(300), np.full(300, np.nan)], 1)
    methods = {"sefa": basis, "sefa, first 5": basis[:5]}
    report = boundaries_report(found, methods, w, (held, own), names, 0.1)
    whole = report["planted area"]["methods"]["sefa"]
    assert whole["index"] == 7 and whole["mean"] < 0.2
    assert whole["p_shuffled"] < 0.02 and whole["shuffled"] > 0.3
    assert report["planted area"]["held_out_spearman"]["low"] > 0.7
    few = report["planted area"]["methods"]["sefa, first 5"]
    assert few["mean"] > few["chance"] - 3 * few["chance_sd"], "no. 7 is not among the first 5"
    noise = report["noise area"]
    assert noise["methods"]["sefa"]["p_shuffled"] > 0.02
    assert noise["methods"]["sefa"]["shuffled"] < noise["methods"]["sefa"]["chance"], (
        "fitted normals lie where w varies most: any direction is too easy a control"
    )
    held_out = noise["held_out_spearman"]
    assert held_out["low"] < 0 < held_out["high"]


def test_ends_that_are_alike_have_no_boundary():
    w, traits = np.random.default_rng(0).standard_normal((20, 4)), np.zeros((20, 1))
    assert draw_boundaries(w, traits, ["hat area"], 0.1, 0.1) == []


FAMILY = "mobile_stylegan"
PLAN = Plan(
    ranges=("all", "3-"),
    top=4,
    random=4,
    step=2.0,
    obvious=1.5,
    compared=2,
    equal_lab=5.0,
    spread_samples=100,
    boundary_samples=20,
    boundary_share=0.2,
    shown=2,
    alphas=(-2.0, 0.0, 2.0),
    seed=0,
)


@pytest.fixture(scope="module")
def setup(checkpoints, latents, tmp_path_factory):
    path = tmp_path_factory.mktemp("lse") / "lse.safetensors"
    generator = load_generator(checkpoints[FAMILY])
    torch.manual_seed(0)
    save_extractor(path, LSE(toys.CLASSES, generator.taps), {"name": "lse"})
    source = Source(str(checkpoints[FAMILY]), str(latents[FAMILY]))
    return open_setup(source, path, View(3, 2, 8, 32))


@pytest.fixture(scope="module")
def study(setup, masks):
    return run_study(setup, PLAN, masks, 1)


def test_a_step_changes_what_later_taps_of_the_lse_show(setup):
    generator = setup.source.generator()
    vector = random_directions(1, generator.w_dim, 0)[0]
    still = measure(setup, vector, range(8), 0.0)
    assert not np.nan_to_num(still["effects"]).any() and not still["image_change"].any()
    assert not still["mask_change"].any()
    found = measure(setup, vector, range(8), 2.0)
    assert found["mask_change"].shape == (3,) and (found["mask_change"] > 0).all()
    assert found["image_change"].shape == (2,) and (found["image_change"] > 0).all()
    late = measure(setup, vector, [5, 6, 7], 2.0)  # the LSE here reads taps up to 8 px
    assert not late["mask_change"].any() and (late["image_change"] > 0).all()


def test_samples_step_either_way_and_effects_are_along_the_direction(setup):
    vector = random_directions(1, setup.source.generator().w_dim, 0)[0]
    ahead, back = (measure(setup, sign * vector, range(8), 1.0)["effects"] for sign in (1, -1))
    areas_of = slice(len(toys.CLASSES))
    assert not np.allclose(ahead[:, areas_of], -back[:, areas_of]), "even effects are there"
    one = replace(setup, view=replace(setup.view, samples=1, color_samples=1))
    ahead_one = measure(one, vector, range(8), 1.0)["effects"]
    np.testing.assert_allclose(ahead_one, ahead[:1], atol=1e-6)


def test_a_study_reports_every_part_beside_its_control(study):
    report = study.report
    assert list(report["ranges"]) == ["all", "3-"]
    for value in report["ranges"].values():
        assert value["measured"] == 4 and len(value["directions"]) == 2
        assert value["change"]["random"]["image"]["mean"] > 0
    assert report["ranges"]["all"]["trace"] == 16 + 16 + 4 + 12 + 12 + 3 + 8
    assert report["ranges"]["3-"]["trace"] == 12 + 12 + 3 + 8
    for method in report["equal_change"]["methods"].values():
        assert method["image_change"]["mean"] == pytest.approx(5, rel=0.2)
    for trait, value in report["boundaries"]["traits"].items():
        assert trait in trait_names(toys.CLASSES)
        assert all({"chance", "shuffled"} <= found.keys() for found in value["methods"].values())
    json.dumps(report, allow_nan=False)


def test_a_study_that_was_killed_goes_on_where_it_was(setup, masks, monkeypatch):
    found = run_study(setup, PLAN, masks, 1)

    def nothing(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(direction_probes, "measure", nothing)
    assert run_study(setup, PLAN, masks, 1).report == found.report
    with pytest.raises(AssertionError, match="measured again"):
        run_study(setup, replace(PLAN, step=2.5), masks, 1)


def test_probes_do_not_depend_on_how_they_are_shared_out(setup, monkeypatch):
    vectors = random_directions(3, setup.source.generator().w_dim, 5)
    whole = Prober(setup).changes(vectors, [0, 1], 1.0, "test")
    monkeypatch.setattr(direction_probes, "DIRECTIONS_A_TASK", 1)
    apart = Prober(setup).changes(vectors, [0, 1], 1.0, "test")
    for name, values in whole.items():
        np.testing.assert_array_equal(values, apart[name])


@pytest.fixture(scope="module")
def written(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    write_study(folder, study, toys.CLASSES, PLAN)
    return folder


def test_pictures_show_the_sample_as_it_is_in_the_middle(written):
    group = Group(written / "pictures.zarr.zip")
    images, distances = group.read("rows", "images"), group.read("rows", "lab")
    assert images.shape == (3, 3, 3, 32, 32), "the best of two ranges, and a random direction"
    assert (images[:, 1] == images[0, 1]).all() and not distances[:, 1].any()
    assert (distances[:, [0, 2]] > 0).all()


def test_tables_findings_and_the_figure_are_made_of_a_report(study, written, tmp_path):
    metrics = {"toy": {"directions": study.report}, "without": {}}
    tables = {name: table for name, _, _, table in all_tables(metrics)}
    assert len(tables["directions"]) == 2 * (2 + 1)
    assert tables["directions_shares"]["layers"].tolist() == ["all", "3-"]
    assert set(tables["directions_equal"]["method"]) == {"SeFa", "PCA of w", "random"}
    boundaries = tables["directions_boundaries"]
    assert {"chance", "shuffled"} <= set(boundaries.columns)
    published = boundaries[boundaries["study"] == "paper: PGGAN Z"]
    pose = published[(published["directions"] == "SeFa") & (published["trait"] == "pose")]
    assert pose["distance"].item() == "0.04" and pose["index"].item() == "2"
    folded = fold(pd.DataFrame({"x": [1.0, 2, np.nan], "x low": [0.5, *[np.nan] * 2], "x high": 3}))
    assert folded["x"].tolist()[:2] == ["1.0 (0.5 to 3.0)", "2.0"], "none of a single sample"
    assert folded["x"].isna()[2]
    lines = findings(metrics["toy"])
    words = ("0 by chance", "(random ones: ", "random ones ", "shuffled groups")
    assert all(word in line for word, line in zip(words, lines[:4], strict=True))
    assert findings({}) == []
    draw_study(written / "pictures.zarr.zip", tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.height > picture.width / 3


@pytest.mark.parametrize(
    ("samples", "color_samples"),
    [(4, 1), (2, 3), (3, 0)],  # of a test split of three
)
def test_more_samples_than_there_are_is_refused(setup, samples, color_samples):
    with pytest.raises(InputError, match="wanted 1 <= color_samples <= samples <= 3"):
        open_setup(setup.source, Path(setup.extractor), View(samples, color_samples, 8, 32))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"top": 15}, "top 15; wanted at most 14"),  # more than w has dimensions
        ({"random": 3}, "random 3; wanted at least 4"),  # two more than are compared
        ({"ranges": ("0-9",)}, "layer range '0-9'"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(setup, masks, tmp_path, change, said):
    with pytest.raises(InputError, match=said):
        run_study(setup, replace(PLAN, **change), masks, 1)


def test_files_of_two_studies_are_refused(setup, checkpoints, latents, written):
    foreign = Source(str(checkpoints["dcgan"]), str(latents["dcgan"]))
    with pytest.raises(InputError, match="name files of one study"):
        open_setup(foreign, Path(setup.extractor), View(1, 1, 32, 32))
    with pytest.raises(InputError, match="directions and a generator of one study"):
        Directions(written / "directions.safetensors").check(checkpoints["dcgan"])
    with pytest.raises(InputError, match="which holds no directions"):
        Directions(setup.extractor)


def test_masks_of_other_classes_are_refused(setup, tmp_path):
    write_group(
        tmp_path / "masks.zarr.zip",
        {"test/masks": np.zeros((1, 4, 4), np.uint8)},
        {"classes": ["a"]},
    )
    with pytest.raises(InputError, match="of classes a; wanted those of"):
        run_study(setup, PLAN, tmp_path / "masks.zarr.zip", 1)


def traversal(setup, written, name="all/sefa/1", without=(), absolute=False, **start):
    where = Start(**({"seed": 3} | start))
    how = Traversal(name, (-2.0, 0.0, 2.0), tuple(without), absolute, mask_size=16)
    files = Path(setup.source.checkpoint), written / "directions.safetensors"
    return traverse_file(*files, how, where, Path(setup.extractor), "float32", "cpu")


def test_a_traversal_moves_by_sd_of_w_and_writes_what_it_shows(setup, written, tmp_path):
    strip, classes = traversal(setup, written, "3-/sefa/1")
    known = Directions(written / "directions.safetensors").find("3-/sefa/1")
    moved = (strip.ws[2] - strip.ws[1]).numpy()
    assert not moved[:3].any(), "rows before the range stay"
    np.testing.assert_allclose(
        moved[3:], np.outer(np.ones(5), 2 * known.sd * known.vector), atol=1e-5
    )
    write_strip(tmp_path, strip.ws.numpy(), strip.images, strip.masks, classes, [-2, 0, 2], 16)
    with Image.open(tmp_path / "strip.png") as picture:
        assert picture.size == (3 * 16, 2 * 16)
    saved = np.load(tmp_path / "latents.npz")
    assert saved["alphas"].tolist() == [-2, 0, 2] and saved["ws"].shape == (3, 8, 14)
    assert {path.name for path in tmp_path.glob("?.png")} == {"0.png", "1.png", "2.png"}


def test_a_traversal_may_count_from_w_avg_and_leave_others_alone(setup, written):
    known, generator = Directions(written / "directions.safetensors"), setup.source.generator()
    strip, _ = traversal(setup, written, absolute=True)
    one = known.find("all/sefa/1")
    along = (strip.ws[:, 0] - generator.w_avg).double().numpy() @ one.vector
    np.testing.assert_allclose(along, [-2 * one.sd, 0, 2 * one.sd], atol=1e-5)
    strip, _ = traversal(setup, written, "all/random/0", without=["all/random/1", "all/pca/0"])
    moved = (strip.ws[2, 0] - strip.ws[0, 0]).double().numpy()
    for name in ("all/random/1", "all/pca/0"):
        assert moved @ known.find(name).vector == pytest.approx(0, abs=1e-5)


def test_a_boundary_is_found_by_its_trait(written, study):
    known = Directions(written / "directions.safetensors")
    trait = next(iter(study.report["boundaries"]["traits"]))
    found, same = known.find(f"all/boundary/{trait}"), known.find("all/boundary/0")
    np.testing.assert_array_equal(found.vector, same.vector)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("all/sefa/14", "wanted all/sefa/0 to all/sefa/13"),
        ("all/sefa/x", "wanted all/sefa/0 to all/sefa/13"),
        ("9-/sefa/0", "wanted one of .*3-/sefa"),
        ("sefa", "wanted one of .*3-/sefa"),
        ("all/boundary/beard", "wanted all/boundary/0 to .*, or "),
    ],
)
def test_a_direction_that_is_none_is_refused(written, name, wanted):
    with pytest.raises(InputError, match=wanted):
        Directions(written / "directions.safetensors").find(name)


def test_a_row_that_is_none_is_refused(setup, written):
    with pytest.raises(InputError, match="row 3 of test; wanted 0 to 2"):
        traversal(setup, written, latents=Path(setup.source.latents), row=3)


def test_the_stage_and_the_tool_leave_whole_files(setup, masks, tmp_path):
    options = vars(PLAN) | {"ranges": ["all"], "alphas": [-1.0, 0.0], "samples": 2}
    options |= {"color_samples": 1, "max_tap_resolution": 8, "mask_size": 16}
    source = setup.source
    inputs = Path(source.checkpoint), Path(source.latents), masks, Path(setup.extractor)
    outs = tmp_path / "toy", tmp_path / "toy.json"
    flatten(find_directions)(*inputs, *outs, **options, compute="float32", device="cpu", workers=1)
    assert {path.name for path in tmp_path.iterdir()} - {"store"} == {"toy", "toy.json"}
    report = read_json(outs[1])
    assert report["ranges"]["all"]["directions"][0]["image_change"]["low"] is None, "one image"
    found = outs[0] / "directions.safetensors"
    strip = tmp_path / "strip"
    flatten(traverse_direction)(inputs[0], found, strip, alphas=[0.0, 1.0], device="cpu")
    names = {path.name for path in (tmp_path / "strip").iterdir()}
    assert names == {"strip.png", "0.png", "1.png", "latents.npz"}
