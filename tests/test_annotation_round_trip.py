"""Export samples, annotate them in a tool, fit: the same extractor from every tool's own export."""

import base64
import json
from dataclasses import replace
from io import BytesIO
from xml.sax.saxutils import quoteattr
from zipfile import ZipFile

import numpy as np
import pytest
import torch
import toys
from PIL import Image
from test_annotations import RULE, as_rle, big, brush, compressed, name

from pipeline.analysis.fewshot.options import Draws
from pipeline.analysis.fewshot.sweeps import fit_fewshot
from pipeline.data.annotation_files import open_pool
from pipeline.data.annotations import read_annotations
from pipeline.data.arrays import Group
from pipeline.data.features import Source
from pipeline.data.inputs import Study
from pipeline.data.mask_files import write_mask
from pipeline.data.palette import rgb

SIZES = {"train": 2, "validation": 0, "test": 3, "pool": 4}
ROWS = 1, 3  # of the pool


@pytest.fixture(scope="module")
def study(tmp_path_factory, checkpoints):
    folder, checkpoint = tmp_path_factory.mktemp("annotated"), checkpoints["mobile_stylegan"]
    latents = toys.write_latents(folder / "latents.zarr.zip", checkpoint, SIZES)
    masks = toys.write_masks(folder / "masks.zarr.zip", 32, SIZES)
    return Study(Source(str(checkpoint), str(latents)), str(masks))


def png(pixels):
    content = BytesIO()
    Image.fromarray(pixels).save(content, "png")
    return content.getvalue()


def parts(mask):
    """(class, where) of the classes that a mask shows."""
    return [(toys.CLASSES[i], mask == i) for i in np.unique(mask)]


def as_pngs(folder, drawn):
    for sample, mask in drawn.items():
        write_mask(folder / f"{sample}.png", mask, toys.CLASSES)


def as_coco(folder, drawn):
    images, shapes = [], []
    for i, (sample, mask) in enumerate(drawn.items()):
        images.append({"id": i, "file_name": f"{sample}.png", "height": 64, "width": 64})
        for label, where in parts(mask):
            shape = {"size": [64, 64], "counts": compressed(as_rle(where))}
            number = toys.CLASSES.index(label)
            shapes.append({"image_id": i, "category_id": number, "segmentation": shape})
    categories = [{"id": i, "name": label} for i, label in enumerate(toys.CLASSES)]
    export = {"images": images, "annotations": shapes, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(export))


def as_labelme(folder, drawn):
    for sample, mask in drawn.items():
        shapes = [
            {
                "label": label,
                "shape_type": "mask",
                "points": [[0, 0], [63, 63]],
                "mask": base64.b64encode(png(where)).decode(),
            }
            for label, where in parts(mask)
        ]
        export = {"imagePath": f"{sample}.png", "imageHeight": 64, "imageWidth": 64}
        (folder / f"{sample}.json").write_text(json.dumps(export | {"shapes": shapes}))


def as_label_studio(folder, drawn):
    size = {"original_width": 64, "original_height": 64, "type": "brushlabels"}
    tasks = []
    for i, (sample, mask) in enumerate(drawn.items()):
        values = [
            {"format": "rle", "rle": brush(where), "brushlabels": [label]}
            for label, where in parts(mask)
        ]
        results = [size | {"value": value} for value in values]
        annotations = [{"completed_by": 1, "result": results}]
        tasks.append({"id": i, "file_upload": f"1a2b-{sample}.png", "annotations": annotations})
    (folder / "project.json").write_text(json.dumps(tasks))


def as_cvat_xml(folder, drawn):
    images = []
    for i, (sample, mask) in enumerate(drawn.items()):
        shapes = ""
        for label, where in parts(mask):
            runs = as_rle(where.T)  # along the rows
            rle = quoteattr(", ".join(map(str, runs)))
            box = 'left="0" top="0" width="64" height="64"'
            shapes += f"<mask label={quoteattr(label)} rle={rle} {box}/>"
        images.append(
            f'<image id="{i}" name="{sample}.png" width="64" height="64">{shapes}</image>'
        )
    (folder / "annotations.xml").write_text(f"<annotations>{''.join(images)}</annotations>")


def as_cvat_masks(folder, drawn):
    colors = rgb(toys.CLASSES)
    rows = zip(toys.CLASSES, colors, strict=True)
    table = "".join(f"{label}:{r},{g},{b}::\n" for label, (r, g, b) in rows)
    with ZipFile(folder / "task.zip", "w") as members:
        members.writestr("labelmap.txt", "# label:color_rgb:parts:actions\n" + table)
        for sample, mask in drawn.items():
            pixels = np.array(colors, np.uint8)[mask]
            members.writestr(f"SegmentationClass/{sample}.png", png(pixels))


def fitted(study, folder):
    annotations = read_annotations(folder, open_pool(study.source, study.masks))
    (fit,), _ = fit_fewshot(replace(study, annotations=annotations), Draws(2, 1, 0), RULE, 1)
    return fit.extractor.weights


@pytest.fixture(scope="module")
def drawn(study):
    """{sample's name: mask at twice the masks' size} of two samples, labeled in whole."""
    pool, masks = open_pool(study.source, study.masks), Group(study.masks).read("pool", "masks")
    return {str(name(pool, row)): big(masks[row]) for row in ROWS}


@pytest.fixture(scope="module")
def wanted(study, drawn, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pngs")
    as_pngs(folder, drawn)
    return fitted(study, folder)


@pytest.mark.parametrize(
    "write", [as_coco, as_labelme, as_label_studio, as_cvat_xml, as_cvat_masks]
)
def test_every_tool_gives_the_extractor_that_pngs_give(write, study, drawn, wanted, tmp_path):
    write(tmp_path, drawn)
    for ours, theirs in zip(fitted(study, tmp_path), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
