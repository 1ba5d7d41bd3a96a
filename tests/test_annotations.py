import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import toys
from PIL import Image

from pipeline.analysis.fewshot.fits import Task, fit, random_tasks, solve
from pipeline.analysis.fewshot.options import Draws, Rule
from pipeline.analysis.fewshot.pool import annotate
from pipeline.analysis.fewshot.sweeps import fit_fewshot
from pipeline.data.annotation_files import open_pool, write_samples, write_tools
from pipeline.data.annotation_formats import _coco_counts
from pipeline.data.annotations import SampleName, read_annotations
from pipeline.data.arrays import Group
from pipeline.data.features import Source
from pipeline.data.inputs import Study
from pipeline.data.mask_files import read_ids, write_mask
from pipeline.data.palette import UNLABELED
from pipeline.data.pixels import draw_pixels
from pipeline.extractors.networks import load_extractor
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import sha256, write_json

SIZES = {"train": 2, "validation": 0, "test": 3, "pool": 4}
RULE = Rule(power=0.5, l2=1e-3, iterations=15, pixels_per_sample=128)


@pytest.fixture(scope="module")
def study(tmp_path_factory, checkpoints):
    folder, checkpoint = tmp_path_factory.mktemp("annotated"), checkpoints["mobile_stylegan"]
    latents = toys.write_latents(folder / "latents.zarr.zip", checkpoint, SIZES)
    masks = toys.write_masks(folder / "masks.zarr.zip", 32, SIZES)
    return Study(Source(str(checkpoint), str(latents)), str(masks))


@pytest.fixture
def pool(study):
    return open_pool(study.source, study.masks)


@pytest.fixture
def masks(study):
    return Group(study.masks).read("pool", "masks")


def name(pool, row):
    return SampleName("toy", "pool", row, int(pool.seeds[row]), 0.7, pool.generator)


def big(mask, factor=2):
    return mask.repeat(factor, 0).repeat(factor, 1)


# Names


def test_a_name_survives_what_tools_do_to_it(pool):
    one = name(pool, 3)
    found = SampleName.parse(f"{one}.png")
    assert found == replace(one, generator=one.generator[:8]) and pool.row(found) == 3
    for changed in (f"/data/upload/1/ab12cd34-{one}.png", f"images\\..%2F{one}", f"{one}_mask"):
        assert pool.row(SampleName.parse(changed)) == 3


@pytest.mark.parametrize(
    "wrong", [{"row": 2}, {"row": 9}, {"split": "test"}, {"truncation_psi": 1.0}, {"seed": 5}]
)
def test_another_sample_is_refused(pool, wrong):
    with pytest.raises(InputError, match=r"annotation of toy-.*; wanted a sample of the pool's 4"):
        pool.row(replace(name(pool, 3), **wrong))
    with pytest.raises(InputError, match=f"psi0.7-{pool.generator[:8]}; export the samples"):
        pool.row(replace(name(pool, 3), generator="0" * 8))
    with pytest.raises(InputError, match=r"'cat\.png', which is no exported sample"):
        SampleName.parse("cat.png")


def test_exported_samples_are_the_pools_images_and_carry_their_names(study, pool, tmp_path):
    paths = write_samples(study.source, "toy", pool.generator, 2, tmp_path / "images")
    generator = study.source.generator()
    with torch.inference_mode():
        images = generator.synthesis(study.source.ws("pool", 0, 2))
    for row, path in enumerate(paths):
        assert path.stem == str(name(pool, row))
        with Image.open(path) as file:
            facts, pixels = dict(file.text), np.asarray(file)
        assert facts["seed"] == str(pool.seeds[row]) and facts["generator"] == pool.generator
        expected = ((images[row].clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(pixels, expected)
    write_tools(tmp_path, toys.CLASSES, 32)
    assert (tmp_path / "classes.txt").read_text().split() == list(toys.CLASSES)
    assert (read_ids(tmp_path / "empty.png", toys.CLASSES) == UNLABELED).all()
    with pytest.raises(InputError, match="5 samples of a pool of 4"):
        write_samples(study.source, "toy", pool.generator, 5, tmp_path)


# Formats: every one of them must give the same planted mask back


def planted():
    mask = np.full((64, 64), UNLABELED, np.uint8)
    mask[8:40, 4:30] = 1
    mask[20:60, 40:50] = 3
    return mask


BOXES = {"skin": (4, 8, 30, 40), "hair": (40, 20, 50, 60)}  # x0, y0, x1, y1 of `planted`


def as_rle(where):
    """COCO's counts of a mask: runs down the columns, zeros first."""
    flat = where.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [len(flat)]])).tolist()
    return [0, *runs] if flat[0] else runs


def compressed(counts):
    """COCO's string of counts, written from its description."""
    text = ""
    for i, count in enumerate(counts):
        value = count - (counts[i - 2] if i > 2 else 0)
        while True:
            part, value = value & 0x1F, value >> 5
            done = value == (-1 if part & 0x10 else 0)
            text += chr(48 + part + (0 if done else 0x20))
            if done:
                break
    return text


def coco(pool, kind):
    names = dict(enumerate(BOXES, 5))
    shapes = []
    for number, label in names.items():
        x0, y0, x1, y1 = BOXES[label]
        where = planted() == toys.CLASSES.index(label)
        shape = [[x0, y0, x1, y0, x1, y1, x0, y1]]
        if kind != "polygon":
            counts = as_rle(where)
            shape = {"size": [64, 64], "counts": compressed(counts) if kind == "text" else counts}
        shapes.append({"image_id": 1, "category_id": number, "segmentation": shape})
    return {
        "images": [{"id": 1, "file_name": f"{name(pool, 2)}.png", "height": 64, "width": 64}],
        "annotations": shapes,
        "categories": [{"id": number, "name": label} for number, label in names.items()],
    }


def labelme(pool):
    shapes = []
    for label, (x0, y0, x1, y1) in BOXES.items():
        points = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
        shapes.append({"label": label, "points": points, "shape_type": "polygon"})
    return {
        "imagePath": f"../images/{name(pool, 2)}.png",
        "imageHeight": 64,
        "imageWidth": 64,
        "shapes": shapes,
    }


def brush(where):
    """rle-pack of RGBA values, written from its description: words of 8 bits."""
    values = np.repeat(where.astype(np.uint8) * 255, 4).ravel()
    sizes = (3, 5, 9, 16)
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{s - 1:04b}" for s in sizes)
    at = 0
    while at < len(values):
        length = 1
        while at + length < len(values) and length < 2**16 and values[at + length] == values[at]:
            length += 1
        which = next(i for i, s in enumerate(sizes) if length - 1 < 2**s)
        bits += f"1{which:02b}{length - 1:0{sizes[which]}b}{values[at]:08b}"
        at += length
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def label_studio(pool, kind):
    results = []
    for label, (x0, y0, x1, y1) in BOXES.items():
        size = {"original_width": 64, "original_height": 64}
        if kind == "brush":
            where = planted() == toys.CLASSES.index(label)
            value = {"format": "rle", "rle": brush(where), "brushlabels": [label]}
        else:
            corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]) / 64 * 100
            value = {"points": corners.tolist(), "polygonlabels": [label]}
        results.append({"type": f"{kind}labels", "value": value} | size)
    upload = f"1a2b3c4d-{name(pool, 2)}.png"
    return [{"id": 1, "file_upload": upload, "annotations": [{"result": results}]}]


FORMATS = {
    "coco polygons": lambda pool: coco(pool, "polygon"),
    "coco rle": lambda pool: coco(pool, "counts"),
    "coco compressed rle": lambda pool: coco(pool, "text"),
    "labelme": labelme,
    "label studio brush": lambda pool: label_studio(pool, "brush"),
    "label studio polygons": lambda pool: label_studio(pool, "polygon"),
}


@pytest.mark.parametrize("layout", FORMATS)
def test_every_tools_export_gives_the_planted_mask(layout, pool, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(FORMATS[layout](pool)))
    found = read_annotations(tmp_path, pool)
    assert list(found) == [2]
    np.testing.assert_array_equal(found[2], planted()[1::2, 1::2])


def test_a_published_compressed_rle():
    # Of a 9x10 mask, from the tests of pycocotools.
    assert _coco_counts(compressed([6, 1, 40, 4, 5, 4, 5, 4, 21])) == [
        6,
        1,
        40,
        4,
        5,
        4,
        5,
        4,
        21,
    ]
    assert _coco_counts("61X13mN000`0") == [6, 1, 40, 4, 5, 4, 5, 4, 21]


def saved_as(mode, mask, path):
    if mode == "indexed":
        write_mask(path, mask, toys.CLASSES)
    elif mode == "gray":
        Image.fromarray(mask).save(path)
    elif mode == "another palette":  # ids count
        image = Image.fromarray(mask, "P")
        image.putpalette([(i * 37 + c * 5) % 251 for i in range(256) for c in range(3)])
        image.save(path)
    else:
        write_mask(path, mask, toys.CLASSES)
        with Image.open(path) as file:
            image = file.convert("RGB")
        if mode == "reordered palette":
            image = image.quantize(8)
        image.save(path)


@pytest.mark.parametrize(
    "mode", ["indexed", "gray", "another palette", "reordered palette", "colors"]
)
def test_png_masks_of_every_kind(mode, pool, tmp_path):
    mask = planted()
    saved_as(mode, mask, tmp_path / f"{name(pool, 1)}.png")
    np.testing.assert_array_equal(read_annotations(tmp_path, pool)[1], mask[1::2, 1::2])


@pytest.mark.parametrize(
    "mask, color, message",
    [
        (np.full((32, 32), 4, np.uint8), None, r"with id 4; wanted ids 0-3, or 255"),
        (np.ones((48, 48), np.uint8), None, "of 48x48 px; wanted 32x32 px or a multiple"),
        (np.full((32, 32), UNLABELED, np.uint8), None, "without a labeled pixel"),
        (np.ones((32, 32), np.uint8), (1, 2, 3), "with color #010203; wanted the classes' colors"),
    ],
)
def test_wrong_masks_are_one_sentence(mask, color, message, pool, tmp_path):
    path = tmp_path / f"{name(pool, 1)}.png"
    if color:
        Image.new("RGB", (32, 32), color).save(path)
    else:
        Image.fromarray(mask).save(path)
    with pytest.raises(InputError, match=message):
        read_annotations(tmp_path, pool)


@pytest.mark.parametrize(
    "value, message",
    [
        ({"a": 1}, "layout is unknown; wanted COCO"),
        ("class", "class 'beard' in .*; wanted one of bg, skin, nose, hair"),
        ("line", "a linestrip in .*; wanted polygons, rectangles, circles and masks"),
        ("unknown", "'cat.png', which is no exported sample"),
    ],
)
def test_wrong_exports_are_one_sentence(value, message, pool, tmp_path):
    if isinstance(value, str):
        kind, value = value, labelme(pool)
        value["imagePath"] = "cat.png" if kind == "unknown" else value["imagePath"]
        value["shapes"][0] |= {
            "class": {"label": "beard"},
            "line": {"shape_type": "linestrip"},
        }.get(kind, {})
    (tmp_path / "x.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match=message):
        read_annotations(tmp_path, pool)


def test_two_annotations_of_a_sample_and_label_studios_pngs_are_refused(pool, tmp_path):
    for ending in ("", "_2"):
        write_mask(tmp_path / f"{name(pool, 1)}{ending}.png", planted(), toys.CLASSES)
    with pytest.raises(InputError, match="a second annotation of"):
        read_annotations(tmp_path, pool)
    write_mask(tmp_path / "task-1-annotation-1-by-1-tag-skin-0.png", planted(), toys.CLASSES)
    (tmp_path / f"{name(pool, 1)}_2.png").unlink()
    with pytest.raises(InputError, match="a PNG of Label Studio"):
        read_annotations(tmp_path, pool)
    with pytest.raises(InputError, match="no folder at"):
        read_annotations(tmp_path / "gone", pool)


# Few shots


def test_annotations_equal_to_the_teachers_masks_give_the_same_extractor(
    study, pool, masks, tmp_path
):
    rows = random_tasks(len(masks), [2], 1, 0)[0].rows
    for row in rows:
        write_mask(tmp_path / f"{name(pool, row)}.png", big(masks[row]), toys.CLASSES)
    drawn = replace(study, annotations=read_annotations(tmp_path, pool))
    (ours,), (row,) = fit_fewshot(drawn, Draws(16, 5, 7), RULE, 1)  # shots and repeats: not read
    sort = tuple(sorted(rows))
    wanted = annotate(study, {r: [0] for r in sort}, RULE.pixels_per_sample)
    expected = solve(study, wanted, Task(sort, 0), RULE).extractor
    assert ours.task.rows == sort and row["selection"] == "annotated"
    for a, b in zip(ours.extractor.weights, expected.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert row["labeled_pixels"] == 2 * 32 * 32


def test_unlabeled_pixels_are_never_read(study, masks):
    """Two teachers that differ only where nobody labeled anything give the same extractor."""
    mask = masks[1].copy()
    mask[:, 16:] = UNLABELED
    weights = []
    for wrong in (masks[1], 3 - masks[1]):
        lies = np.where(mask == UNLABELED, wrong, mask)
        planted_here = {1: np.where(mask == UNLABELED, UNLABELED, lies).astype(np.uint8)}
        drawn = replace(study, annotations=planted_here)
        pool = annotate(drawn, {1: [0]}, 128)
        assert not (pool.parts[1, 0].y == UNLABELED).any()
        weights.append(fit(pool, Task((1,), 0), RULE, 4))
    assert torch.equal(*weights)
    pixels = draw_pixels(mask, 4096, 0, 4)
    assert (pixels.places % 32 < 16).all() and len(np.unique(pixels.places)) > 400
    # Weighted draws estimate means over the labeled half: of a class, and of the column.
    half = mask[:, :16].ravel()
    for label in range(4):
        share = pixels.weights[pixels.classes == label].sum()
        assert abs(share - (half == label).mean()) < 0.02
    assert abs((pixels.weights * (pixels.places % 32)).sum() - 7.5) < 0.2


def test_a_full_mask_is_drawn_as_ever():
    mask = np.random.default_rng(0).integers(0, 4, (16, 16)).astype(np.uint8)
    drawn = draw_pixels(mask, 64, 3, 4)
    assert drawn.places.dtype == np.int32
    np.testing.assert_array_equal(drawn.classes, mask.ravel()[drawn.places])


def test_the_stages_go_from_export_to_an_extractor(study, pool, masks, tmp_path):
    from stages import flatten
    from stages.export_samples import export_samples
    from stages.fit_fewshot import fit_fewshot as fit_stage

    source = study.source
    paths = source.checkpoint, source.latents, study.masks
    flatten(export_samples)(*paths, tmp_path / "todo", study="toy", samples=2, device="cpu")
    drawn = tmp_path / "drawn"
    drawn.mkdir()
    for row, path in enumerate(sorted((tmp_path / "todo" / "images").glob("*.png"))):
        write_mask(drawn / path.name, masks[row], toys.CLASSES)
    facts = {
        "taps": [vars(tap) for tap in study.taps],
        "masks": Group(study.masks).digest("masks"),
        "align_corners": False,
    }
    write_json(tmp_path / "pixels.json", {"facts": facts})
    full = {"mean": 50.0}
    write_json(
        tmp_path / "full.json",
        {"against_teacher": {"miou_per_image": full, "miou_dataset": full}},
    )
    rule = vars(RULE) | {"shots": 9, "selection": "random", "repeats": 9, "seed": 0, "workers": 1}
    flatten(fit_stage)(
        *(*paths, tmp_path / "pixels.json", tmp_path / "full.json"),
        *(tmp_path / "out", tmp_path / "scores.json", tmp_path / "costs.json"),
        annotations=drawn,
        **rule,
        compute="float32",
        device="cpu",
    )
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["shots"] == 2 and scores["selection"] == "annotated"
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["0.safetensors"]
    assert tuple(load_extractor(tmp_path / "out" / "0.safetensors").classes) == toys.CLASSES
    assert sha256(source.checkpoint) == pool.generator
