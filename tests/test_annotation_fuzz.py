"""Damaged annotation files: labels, or one sentence; never a traceback, never silence.

FUZZ=20000 python -m pytest tests/test_annotation_fuzz.py runs that many mutations per format.
"""

import json
import os
from copy import deepcopy
from io import BytesIO

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_annotation_files import (
    NAME,
    POOL,
    SHAPES,
    XML,
    coco,
    cvat_masks,
    drawn,
    labelme,
    region,
    task,
)

from pipeline.data.annotations import read_annotations
from pipeline.runtime.errors import InputError

EXAMPLES = int(os.environ.get("FUZZ", "60"))
RLE = {"counts": [520, 48, 3528], "size": [64, 64]}
TREES = {
    "COCO polygons": coco(),
    "COCO RLE": coco(RLE),
    "LabelMe": labelme(imageHeight=64, imageWidth=64),
    "LabelMe mask": labelme([[8, 8], [55, 55]], "mask"),
    "Label Studio": task(drawn()),
    "Label Studio ellipse": task(region("ellipselabels", x=50, y=50, radiusX=30, radiusY=20)),
    "JSON-MIN": [{"id": 7, "image": f"{NAME}.png", "label": [drawn()["result"][0]["value"]]}],
}
ODD = st.sampled_from(
    [None, True, "", "x", -1, 0, 1.5, 10**12, float("nan"), [], {}, [[]], [1, "a"], {"a": 1}]
)
FUZZED = settings(
    max_examples=EXAMPLES,
    deadline=5000,  # ms for one file: a hang is a failure
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def ends_well(folder):
    try:
        found = read_annotations(folder, POOL)
    except InputError as error:
        assert str(folder) in str(error), error
    else:
        assert found, "silently empty"


def paths(tree, at=()):
    """Where the values of a JSON tree are."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield (*at, key)
        if isinstance(value, dict | list | tuple):
            yield from paths(value, (*at, key))


def mutate(tree, data):
    """One value dropped, retyped, or replaced by another value of the tree."""
    places = list(paths(tree))
    *way, last = data.draw(st.sampled_from(places))
    parent = tree
    for key in way:
        parent = parent[key]
    how = data.draw(st.sampled_from(["drop", "retype", "swap"]))
    if how == "drop":
        del parent[last]
    elif how == "retype":
        parent[last] = deepcopy(data.draw(ODD))
    else:
        other = tree
        for key in data.draw(st.sampled_from(places)):
            other = other[key] if not isinstance(other, str) else other
        parent[last] = deepcopy(other)


@pytest.mark.parametrize("form", TREES)
@FUZZED
@given(data=st.data())
def test_mutated_json(form, tmp_path, data):
    tree = json.loads(json.dumps(TREES[form]))
    for _ in range(data.draw(st.integers(1, 3))):
        if tree:
            mutate(tree, data)
    (tmp_path / "a.json").write_text(json.dumps(tree))
    ends_well(tmp_path)


def image(kind):
    content = BytesIO()
    Image.fromarray(np.eye(64, dtype=np.uint8)).save(content, kind)
    return content.getvalue()


def zipped(tmp_path):
    cvat_masks(tmp_path / "whole.zip")
    content = (tmp_path / "whole.zip").read_bytes()
    (tmp_path / "whole.zip").unlink()
    return content


BYTES = {
    "a.json": lambda _: json.dumps(coco(RLE)).encode(),
    "annotations.xml": lambda _: (XML % SHAPES["z order"]).encode(),
    "mask.xml": lambda _: (XML % SHAPES["mask"]).encode(),
    "a.zip": zipped,
    f"{NAME}.png": lambda _: image("png"),
    f"{NAME}.tiff": lambda _: image("tiff"),
    f"{NAME}.bmp": lambda _: image("bmp"),
}


@pytest.mark.parametrize("file", BYTES)
@FUZZED
@given(data=st.data())
def test_damaged_bytes(file, tmp_path, data):
    content = bytearray(BYTES[file](tmp_path))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    (tmp_path / file).write_bytes(content)
    ends_well(tmp_path)
