"""Annotation files as people have them: each gives the right labels, or one sentence."""

import base64
import codecs
import json
from io import BytesIO
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from pipeline.data.annotations import Pool, describe, read_annotations
from pipeline.data.palette import UNLABELED
from pipeline.runtime.errors import InputError

CLASSES = ("bg", "skin", "hair")
POOL = Pool(np.arange(7, 11), 0.5, "378202fb" + "0" * 56, CLASSES, 64, 64)
NAME = "toy-pool-00000-seed7-psi0.5-378202fb"
BOX = [[8, 8], [56, 8], [56, 56], [8, 56]]  # skin, 2304 px
FLAT = [8, 8, 56, 8, 56, 56, 8, 56]


def labelme(points=BOX, kind="polygon", **size):
    shape = {"label": "skin", "points": points, "shape_type": kind}
    if kind == "mask":
        png = BytesIO()
        Image.fromarray(np.ones((48, 48), bool)).save(png, "png")
        shape["mask"] = base64.b64encode(png.getvalue()).decode()
    return {"shapes": [shape], "imagePath": f"{NAME}.png", **size}


def coco(segmentation=(FLAT,), image_id=1, file_name=f"{NAME}.png"):
    one = {"id": 5, "image_id": image_id, "category_id": 1}
    return {
        "images": [{"id": 1, "width": 64, "height": 64, "file_name": file_name}],
        "categories": [{"id": 1, "name": "skin"}],
        "annotations": [one | {"segmentation": segmentation}],
    }


def task(*annotations, upload=f"0a1b-{NAME}.png", **data):
    return [{"id": 7, "file_upload": upload, "data": data, "annotations": list(annotations)}]


def drawn(points=BOX, beside=(), **facts):
    value = {"points": (np.array(points) / 0.64).tolist(), "polygonlabels": ["skin"]}
    region = {"type": "polygonlabels", "original_width": 64, "original_height": 64}
    return {"result": [region | {"value": value}, *beside], **facts}


def region(kind, **value):
    size = {"original_width": 64, "original_height": 64}
    return {"result": [{"type": kind, "value": value | {kind: ["skin"]}, **size}]}


MIN = [drawn()["result"][0]["value"] | {"original_width": 64, "original_height": 64}]


SKIN = {
    "rectangle of two corners": labelme([[56, 56], [8, 8]], "rectangle"),
    "rectangle of four corners": labelme(BOX, "rectangle"),
    "LabelMe without size": labelme(),
    "LabelMe with null size": labelme(imageHeight=None, imageWidth=None),
    "COCO's polygon": coco(),
    "flat polygon": coco(FLAT),
    "id as text": coco(image_id="1"),
    "Roboflow's name": coco(file_name=f"{NAME}_png.rf.c26e6e52.jpg".replace("0.5", "0-5")),
    "choices beside": task(drawn(beside=[{"type": "choices", "value": {"choices": ["yes"]}}])),
    "cancelled": task(drawn(), drawn([[0, 0], [9, 0], [9, 9]], was_cancelled=True)),
    "Label Studio's rectangle": task(
        region("rectanglelabels", x=12.5, y=12.5, width=75, height=75)
    ),
    "a rectangle turned around its corner": task(
        region("rectanglelabels", x=87.5, y=12.5, width=75, height=75, rotation=90)
    ),
    "JSON-MIN": [{"id": 7, "image": f"/data/upload/1/ab-{NAME}.png", "label": MIN}],
    "LabelMe's mask": labelme([[8, 8], [55, 55]], "mask"),
    "tasks from JSON": task(drawn(), upload="5e6f-tasks.json", text="a", image=f"/x/{NAME}.png"),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("case", SKIN)
def test_what_is_unambiguous_is_read(case, encoding, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(SKIN[case]), encoding)
    (tmp_path / "._a.json").write_bytes(b"\x00")
    (tmp_path / "README.md").write_text("mine")
    found = read_annotations(tmp_path, POOL)
    assert set(found) == {0}
    wanted = np.full((64, 64), UNLABELED, np.uint8)
    wanted[8:56, 8:56] = 1
    np.testing.assert_array_equal(found[0], wanted)
    line = describe(found, CLASSES, tmp_path)
    assert line == "1 annotated samples; labeled pixels: skin 2304; from a.json"


REFUSED = {
    "box": (coco([]), "annotation 5 in .*, a box without a shape"),
    "unknown image": (coco(image_id=3), "annotation 5 of image 3 in"),
    "two annotators": (task(drawn(), drawn()), "task 7 in .* with 2 annotations"),
    "no region": (task(), "task 7 in .* without a region"),
    "all cancelled": (task(drawn(was_cancelled=True)), "task 7 in .* without a region"),
    "turned": (
        task({"result": [drawn()["result"][0] | {"image_rotation": 90}]}),
        "task 7 in .*turned",
    ),
    "line": (labelme(BOX, "linestrip"), "a linestrip in"),
    "huge": (labelme(imageHeight=10**9, imageWidth=10**9), "an image of 1000000000x1000000000 px"),
    "long RLE": (coco({"counts": [10**12, 5], "size": [64, 64]}), "RLE of 1000000000005 pixels"),
    "no shape": (labelme() | {"shapes": [{}]}, "which cannot be read .KeyError"),
    "null": (coco() | {"images": None}, "which cannot be read"),
    "odd polygon": (coco([FLAT[:-1]]), "which cannot be read"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_is_one_sentence(case, tmp_path):
    value, message = REFUSED[case]
    (tmp_path / "a.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match=message):
        read_annotations(tmp_path, POOL)


@pytest.mark.parametrize("file", ["a.txt", "a.npy", f"{NAME}.jpg"])
def test_a_form_that_is_not_read_is_named(file, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / file).write_bytes(b"x")
    with pytest.raises(InputError, match=f"{file}, a file that is not read; wanted PNG"):
        read_annotations(tmp_path, POOL)


def test_a_link_to_nothing_is_named(tmp_path):
    (tmp_path / "a.json").symlink_to(tmp_path / "gone.json")
    with pytest.raises(InputError, match="which cannot be read"):
        read_annotations(tmp_path, POOL)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[", codecs.BOM_UTF8, b"[" * 100_000])
def test_broken_files_are_one_sentence(content, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError):
        read_annotations(tmp_path, POOL)


@pytest.mark.parametrize("ending", ["png", "PNG", "bmp", "tif", "tiff"])
def test_images_of_ids_are_read(ending, tmp_path):
    ids = np.zeros((64, 64), np.uint8)
    ids[8:56, 8:56] = 1
    Image.fromarray(ids).save(tmp_path / f"{NAME}.{ending}")
    np.testing.assert_array_equal(read_annotations(tmp_path, POOL)[0], ids)


def test_transparent_ids_are_unlabeled(tmp_path):
    ids = np.zeros((64, 64), np.uint8)
    ids[8:56, 8:56] = 1
    image = Image.fromarray(ids)
    image.putpalette([(i * 37 + c * 5) % 251 for i in range(256) for c in range(3)])
    image.save(tmp_path / f"{NAME}.png", transparency=0)
    found = read_annotations(tmp_path, POOL)[0]
    np.testing.assert_array_equal(found, np.where(ids == 0, UNLABELED, 1))


DISK = {
    "LabelMe's circle": labelme([[32, 32], [52, 32]], "circle"),
    "Label Studio's ellipse": task(
        region("ellipselabels", x=50, y=50, radiusX=31.25, radiusY=31.25, rotation=30)
    ),
}


@pytest.mark.parametrize("case", DISK)
def test_disks_have_their_area(case, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(DISK[case]))
    mask = read_annotations(tmp_path, POOL)[0]
    assert abs((mask == 1).sum() - np.pi * 20**2) < 10
    np.testing.assert_array_equal(mask, mask[::-1, ::-1])


XML = f"""<?xml version="1.0"?><annotations><version>1.1</version>
<image id="0" name="{NAME}.png" width="64" height="64">
%s
</image><image id="1" name="toy-pool-00001-seed8-psi0.5-378202fb.png" width="64" height="64"/>
</annotations>"""
SHAPES = {
    "polygon": '<polygon label="skin" points="8.0,8.0;56.0,8.0;56.0,56.0;8.0,56.0" z_order="0"/>',
    "box": '<box label="skin" xtl="8" ytl="8" xbr="56" ybr="56" z_order="0"/>',
    "turned box": '<box label="skin" xtl="8" ytl="8" xbr="56" ybr="56" rotation="90"/>',
    "mask": '<mask label="skin" rle="0,2304" left="8" top="8" width="48" height="48"/>',
    "z order": '<box label="skin" xtl="8" ytl="8" xbr="56" ybr="56" z_order="1"/>'
    '<ellipse label="hair" cx="32" cy="32" rx="20" ry="10" z_order="0"/>',
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_cvat_for_images_is_read(shape, zipped, tmp_path):
    if zipped:
        with ZipFile(tmp_path / "task.zip", "w") as members:
            members.writestr("annotations.xml", XML % SHAPES[shape])
    else:
        (tmp_path / "annotations.xml").write_text(XML % SHAPES[shape])
    found = read_annotations(tmp_path, POOL)
    assert set(found) == {0}
    wanted = np.full((64, 64), UNLABELED, np.uint8)
    wanted[8:56, 8:56] = 1
    np.testing.assert_array_equal(found[0], wanted)


def cvat_masks(path, label="skin", color=(250, 50, 83)):
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[8:56, 8:56] = (250, 50, 83)
    png = BytesIO()
    Image.fromarray(rgb).save(png, "png")
    with ZipFile(path, "w") as members:
        red, green, blue = color
        text = (
            f"# label:color_rgb:parts:actions\nbackground:0,0,0::\n{label}:{red},{green},{blue}::"
        )
        members.writestr("labelmap.txt", text)
        members.writestr(f"SegmentationClass/{NAME}.png", png.getvalue())
        members.writestr(f"SegmentationObject/{NAME}.png", png.getvalue())


def test_cvats_zip_of_masks_is_read(tmp_path):
    cvat_masks(tmp_path / "task.zip")
    wanted = np.full((64, 64), UNLABELED, np.uint8)
    wanted[8:56, 8:56] = 1
    np.testing.assert_array_equal(read_annotations(tmp_path, POOL)[0], wanted)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"label": "nose"}, "class 'nose' in Seg"),
        ({"color": (1, 2, 3)}, "a color .250, 50, 83. in"),
    ],
)
def test_a_zip_of_masks_with_unknown_labels_or_colors_is_refused(facts, message, tmp_path):
    cvat_masks(tmp_path / "task.zip", **facts)
    with pytest.raises(InputError, match=message):
        read_annotations(tmp_path, POOL)


BROKEN_CVAT = {
    "video": ("<annotations><track/></annotations>", "XML of another kind"),
    "skeleton": (XML % '<skeleton label="skin"/>', "a skeleton in"),
    "points": (XML % '<points label="skin" points="1,2"/>', "a points in"),
    "outside": (
        XML % '<mask label="skin" rle="0,4" left="63" top="0" width="2" height="2"/>',
        "at",
    ),
    "no shape": (XML % "", "without an annotation"),
    "no XML": ("<annotations>", "which is not XML"),
}


@pytest.mark.parametrize("case", BROKEN_CVAT)
def test_cvat_that_is_not_read_is_one_sentence(case, tmp_path):
    text, message = BROKEN_CVAT[case]
    (tmp_path / "annotations.xml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_annotations(tmp_path, POOL)


def test_a_zip_of_something_else_lists_what_it_holds(tmp_path):
    with ZipFile(tmp_path / "a.zip", "w") as members:
        members.writestr("photos/a.jpg", "x")
    with pytest.raises(InputError, match=r"a zip that holds photos/a\.jpg; wanted CVAT"):
        read_annotations(tmp_path, POOL)


def test_pages_of_a_tiff_are_not_dropped(tmp_path):
    page = Image.fromarray(np.zeros((64, 64), np.uint8))
    page.save(tmp_path / f"{NAME}.tiff", save_all=True, append_images=[page])
    with pytest.raises(InputError, match="of 2 pages"):
        read_annotations(tmp_path, POOL)


def people(form):
    """Two annotations of one sample: by 3 (skin), and later by 4 (another place)."""
    mine = drawn(completed_by=3, updated_at="2026-01-02T10:00:00Z")
    other = {"id": 4, "email": "d@x.org"}
    theirs = drawn(
        [[0, 0], [8, 0], [8, 8], [0, 8]], completed_by=other, updated_at="2026-01-03T09:00:00Z"
    )
    if form == "JSON":
        return task(theirs, mine)
    rows = []
    for who, one in ((3, mine), (4, theirs)):
        result = one["result"][0]
        label = [result["value"] | {"original_width": 64, "original_height": 64}]
        row = {"id": 7, "image": f"{NAME}.png", "label": label, "annotator": who}
        rows.append(row | {"updated_at": one["updated_at"]})
    return rows


@pytest.mark.parametrize("form", ["JSON", "JSON-MIN"])
@pytest.mark.parametrize(("who", "pixels"), [("3", 48 * 48), ("4", 64), ("newest\n", 64)])
def test_of_several_annotators_the_named_one_counts(form, who, pixels, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(people(form)))
    with pytest.raises(InputError, match=r"task 7 .* with 2 annotations .*annotator\.txt"):
        read_annotations(tmp_path, POOL)
    (tmp_path / "annotator.txt").write_text(who)
    assert (read_annotations(tmp_path, POOL)[0] == 1).sum() == pixels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", "2 annotations .by 3, 4.*, by 5"),
        ("", "annotator.txt without one line"),
        ("3\n4", "annotator.txt without one line"),
    ],
)
def test_an_annotator_who_is_not_there_is_named(text, message, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(people("JSON-MIN")))
    (tmp_path / "annotator.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_annotations(tmp_path, POOL)
