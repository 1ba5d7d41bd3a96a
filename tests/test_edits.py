"""Edits as data: their geometry, what they refuse, and the scripted ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pipeline.editing.semantic.edits import apply_edit, check_edit
from pipeline.editing.semantic.files import parse_edit, read_edit, read_edits, select_edits
from pipeline.editing.semantic.shapes import Box, Inapplicable, boxes
from pipeline.editing.semantic.strokes import class_colors, stroke_colors
from pipeline.runtime.errors import InputError
from pipeline.teachers.labels import FACE15

EDITS = Path(__file__).parents[1] / "edits"
ID = {name: i for i, name in enumerate(FACE15)}


def face(size: int, **extra: tuple[float, float, float, float]) -> np.ndarray:
    """A drawn face: ellipses (center x, y, diameters) as fractions of the mask, in this order."""
    parts = [
        ("hair", (0.5, 0.42, 0.7, 0.78)),
        ("neck", (0.5, 0.92, 0.25, 0.3)),
        ("ear", (0.245, 0.5, 0.08, 0.14)),
        ("ear", (0.755, 0.5, 0.08, 0.14)),
        ("skin", (0.5, 0.52, 0.5, 0.66)),
        ("eye", (0.4, 0.46, 0.1, 0.05)),
        ("eye", (0.6, 0.46, 0.1, 0.05)),
        ("brow", (0.4, 0.39, 0.14, 0.035)),
        ("brow", (0.6, 0.39, 0.14, 0.035)),
        ("nose", (0.5, 0.56, 0.1, 0.16)),
        ("u_lip", (0.5, 0.7, 0.2, 0.06)),
        ("l_lip", (0.5, 0.74, 0.18, 0.07)),
        *extra.items(),
    ]
    mask = np.zeros((size, size), np.uint8)
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    for name, (a, b, width, height) in parts:
        mask[((x - a) / width) ** 2 + ((y - b) / height) ** 2 <= 0.25] = ID[name]
    return mask


# What each scripted edit needs beyond the plain face.
SHOWS = {
    "remove_glasses": {"eye_g": (0.5, 0.46, 0.34, 0.1)},
    "close_mouth": {"mouth": (0.5, 0.72, 0.14, 0.05)},
}


def one(step: dict, **more) -> object:
    return parse_edit("mine", {"steps": [step], **more})


@pytest.mark.parametrize("edit", read_edits(EDITS), ids=lambda edit: edit.name)
def test_a_scripted_edit_has_one_relative_area_at_all_resolutions(edit):
    found = {}
    for size in (64, 256):
        mask = face(size, **SHOWS.get(edit.name, {}))
        target = apply_edit(edit, mask, FACE15)
        assert (target.region == (target.mask != mask)).all()
        found[size] = target.region
    area = found[256].mean()
    inner = ndimage.binary_erosion(found[256])
    outline = (found[256] & ~inner).sum() / 256  # its length, in sides of the mask
    assert abs(found[64].mean() - area) <= 0.02 * area + 0.4 * outline / 64  # 0.4 px all along it


def test_there_are_at_least_eight_scripted_edits():
    assert len(read_edits(EDITS)) >= 8


def test_an_ellipse_and_a_polygon_have_their_areas_and_places():
    mask = face(256)
    (box,) = boxes(mask, ID, ["skin"])
    oval = {"do": "paint", "to": "hat", "shape": {"box": "skin", "center": [0.5, 0.5]}}
    oval["shape"]["size"] = [0.5, 0.25]
    target = apply_edit(one(oval), mask, FACE15)
    assert target.region.sum() == pytest.approx(
        np.pi / 4 * 0.5 * 0.25 * box.width * box.height, rel=0.02
    )
    rows, columns = np.nonzero(target.region)
    assert rows.mean() == pytest.approx(box.top + box.height / 2, abs=0.6)
    assert columns.mean() == pytest.approx(box.left + box.width / 2, abs=0.6)
    corner = {"do": "paint", "to": "hat", "shape": {"points": [[0, 0], [1, 0], [0, 0.5]]}}
    triangle = apply_edit(one(corner), mask, FACE15).mask == ID["hat"]
    assert triangle.mean() == pytest.approx(0.25, abs=0.01)
    assert triangle[0, 200] and triangle[100, 5] and not triangle[100, 200]


def test_each_connected_part_gets_its_own_shape():
    dot = {"box": "eye", "each": True, "center": [0.5, 0.5], "size": [0.6, 0.6]}
    target = apply_edit(one({"do": "paint", "to": "hat", "shape": dot}), face(256), FACE15)
    x = np.nonzero(target.region)[1] / 256
    assert (x < 0.5).mean() == pytest.approx(0.5, abs=0.05)
    assert not ((x > 0.45) & (x < 0.55)).any()  # one shape for both eyes would lie here


def test_a_stray_pixel_does_not_move_a_box():
    mask = face(128)
    (before,) = boxes(mask, ID, ["hair"])
    mask[127, 0] = ID["hair"]
    assert boxes(mask, ID, ["hair"]) == [before]


def test_the_box_of_no_class_is_the_mask():
    assert boxes(face(64), ID, []) == [Box(-0.5, -0.5, 64, 64)]


def test_growing_takes_a_ring_of_the_width_asked_for():
    mask = np.zeros((200, 200), np.uint8)
    mask[80:120, 80:120] = ID["hair"]
    step = {"do": "grow", "classes": "hair", "by": 0.25, "box": "hair", "over": "bg"}
    grown = apply_edit(one(step), mask, FACE15).mask == ID["hair"]
    side = boxes(mask, ID, ["hair"])[0].side
    assert np.nonzero(grown[100])[0][[0, -1]].tolist() == [80 - int(side / 4), 119 + int(side / 4)]
    assert not grown[80 - int(side / 4), 80 - int(side / 4)]  # round corners


def test_growing_keeps_to_the_classes_that_it_may_cover():
    step = {"do": "grow", "classes": "brow", "by": 0.1, "box": "skin", "over": "skin"}
    mask = face(128)
    target = apply_edit(one(step), mask, FACE15)
    assert set(mask[target.region]) == {ID["skin"]}
    assert set(target.mask[target.region]) == {ID["brow"]}


def test_of_several_replacements_the_nearest_one_is_taken():
    mask = np.full((4, 9), ID["mouth"], np.uint8)
    mask[:, 0], mask[:, -1] = ID["u_lip"], ID["l_lip"]
    step = {"do": "replace", "classes": "mouth", "to": ["u_lip", "l_lip"]}
    closed = apply_edit(one(step), mask, FACE15).mask
    assert (closed[:, :4] == ID["u_lip"]).all() and (closed[:, 5:] == ID["l_lip"]).all()


def test_a_png_leaves_255_and_scales_with_the_mask(tmp_path):
    drawn = np.full((32, 32), 255, np.uint8)
    drawn[:8] = ID["hat"]
    Image.fromarray(drawn).save(tmp_path / "cap.png")
    mask = face(64)
    target = apply_edit(read_edit(tmp_path / "cap.png"), mask, FACE15)
    assert (target.mask[:16] == ID["hat"]).all() and (target.mask[16:] == mask[16:]).all()
    drawn[0, 0] = 77
    Image.fromarray(drawn).save(tmp_path / "cap.png")
    with pytest.raises(InputError, match="id 77"):
        apply_edit(read_edit(tmp_path / "cap.png"), mask, FACE15)
    Image.fromarray(drawn[8:24]).save(tmp_path / "half.png")
    with pytest.raises(InputError, match="shaped as the mask"):
        apply_edit(read_edit(tmp_path / "half.png"), mask, FACE15)


HAT = {"do": "paint", "to": "hat", "shape": {"points": [[0, 0], [1, 0], [1, 1]]}}
ON_LASHES = {"box": "lashes", "points": [[0, 0], [1, 0], [1, 1]]}
BAD = {
    "an unknown class to paint": (HAT | {"to": "halo"}, "halo"),
    "an unknown class of a box": (HAT | {"shape": ON_LASHES}, "lashes"),
    "an unknown operation": (HAT | {"do": "erase"}, "'erase'.*paint, replace, grow, png"),
    "an unknown field": (HAT | {"color": "red"}, "color"),
    "a missing field": ({"do": "paint", "to": "hat"}, "shape"),
    "a shape that is none": (HAT | {"shape": {"center": [0.5, 0.5]}}, "polygon"),
}


@pytest.mark.parametrize("step, message", BAD.values(), ids=BAD)
def test_a_bad_edit_is_refused_before_any_sample(step, message):
    with pytest.raises(InputError, match=message) as error:
        check_edit(one(step), FACE15)
    assert not isinstance(error.value, Inapplicable)


ABSENT = {
    "nothing to replace": ({"do": "replace", "classes": "hat", "to": "bg"}, {}, "without hat"),
    "no box": (HAT | {"shape": ON_LASHES | {"box": "mouth"}}, {}, "mine.*mouth"),
    "a region too large": (HAT, {"area": [0.0, 0.1]}, "10.00%"),
    "a region that is empty": (HAT | {"over": "ear_r"}, {}, "0.00%"),
    "a class that must be absent": (HAT, {"without": "hair"}, "hair"),
    "too little of a class": (HAT, {"needs": {"skin": 0.9}}, "skin"),
}


@pytest.mark.parametrize("step, more, message", ABSENT.values(), ids=ABSENT)
def test_an_edit_that_means_nothing_on_a_sample_says_why(step, more, message):
    with pytest.raises(Inapplicable, match=message):
        apply_edit(one(step, **more), face(64), FACE15)


def test_files_that_are_no_edits_are_refused(tmp_path):
    for name, text, message in (
        ("a.json", "{", "not JSON"),
        ("b.json", '{"steps": []}', "without steps"),
        ("c.json", json.dumps({"steps": [HAT], "zone": 1}), "zone"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=message) as error:
            read_edit(tmp_path / name)
        assert "dvc" not in str(error.value), "a user's own file"
    for name in ("gone.json", "gone.png", "."):
        with pytest.raises(
            InputError, match=r"no file at .*; wanted an edit \(JSON or PNG\); name"
        ):
            read_edit(tmp_path / name)
    with pytest.raises(InputError, match="no edit in"):
        (tmp_path / "empty").mkdir()
        read_edits(tmp_path / "empty")
    with pytest.raises(InputError, match="add_hat"):
        select_edits(read_edits(EDITS), ["add_hats"])


def test_strokes_have_the_samples_own_color_and_else_the_mean_one():
    mask = face(64)
    image = np.zeros((3, 64, 64), np.uint8)
    image[0], image[:, mask == ID["hair"]] = 90, np.array([[10], [20], [30]])
    means = np.tile(np.arange(15.0)[:, None], 3)
    hair = one({"do": "replace", "classes": "skin", "to": "hair"})
    target = apply_edit(hair, mask, FACE15)
    stroke = stroke_colors(image, mask, target, means)
    assert (stroke[:, target.region] == np.array([[10], [20], [30]])).all()
    assert (stroke[:, ~target.region] == image[:, ~target.region]).all()
    target = apply_edit(one(HAT), mask, FACE15)
    assert (stroke_colors(image, mask, target, means)[:, target.region] == ID["hat"]).all()


def test_mean_colors_of_classes():
    images = np.zeros((2, 3, 2, 2), np.uint8)
    images[0], images[1, 2] = 100, 50
    masks = np.array([[[0, 0], [0, 1]], [[1, 1], [1, 1]]], np.uint8)
    found = class_colors(images, masks, 3)
    assert found[0].tolist() == [100, 100, 100]
    assert found[1].tolist() == [20, 20, 60]  # one pixel of 100 and four of (0, 0, 50)
    assert found[2].tolist() == [50, 50, 75]  # never seen: the mean of all
