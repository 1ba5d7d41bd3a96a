import json
import re
import subprocess
import sys

import numpy as np
import pytest
import toys

from pipeline.analysis.categories import read_scores, select_categories
from pipeline.data.arrays import write_group
from pipeline.runtime.errors import InputError


def test_any_extractor_above_the_threshold_keeps_a_class():
    scores = {
        "lse": {"skin": 90.0, "eye": 9.0, "hat": 10.0, "ring": None, "lip": 4.0},
        "nse1": {"skin": 80.0, "eye": 11.0, "hat": 3.0, "ring": None, "lip": 9.9},
    }
    chosen = select_categories(scores, 10.0)
    assert chosen.kept == ("skin", "eye"), "strictly above, by any of them"
    assert chosen.dropped == ("hat", "ring", "lip")
    assert chosen.best == {"skin": 90.0, "eye": 11.0, "hat": 10.0, "ring": None, "lip": 9.9}


def test_a_class_that_no_sample_has_is_dropped_for_any_extractor():
    chosen = select_categories({"a": {"x": None, "y": 50.0}, "b": {"x": None, "y": None}}, 0.0)
    assert chosen.kept == ("y",)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({"lse": {"skin": 9.0, "hat": None}}, "no class above an IoU of 10 %.*best has 9.0"),
        ({"lse": {"skin": None}}, "no class above"),
        ({}, "no extractor"),
        ({"a": {"x": 50.0}, "b": {"y": 50.0}}, "scores of b on classes y"),
    ],
)
def test_bad_scores_are_said(scores, said):
    with pytest.raises(InputError, match=said):
        select_categories(scores, 10.0)


def evaluation(folder, name, **per_class):
    folder.mkdir(exist_ok=True)
    score = {"mean": 1.0, "per_class": per_class}
    value = {"against_teacher": {"miou_per_image": score, "miou_dataset": score}}
    (folder / f"{name}.json").write_text(json.dumps(value))


def select(folder, *options):
    masks = folder / "masks.zarr.zip"
    write_group(masks, {"test/masks": np.zeros((1, 4, 4), np.uint8)}, {"classes": toys.CLASSES})
    paths = [str(masks), str(folder / "metrics"), str(folder / "selection.json")]
    words = [sys.executable, "-m", "stages.select_categories", *paths, *options]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_the_stage_reads_evaluations_and_leaves_fits_and_class_0_alone(tmp_path):
    evaluation(tmp_path / "metrics", "lse", bg=99.0, skin=70.0, nose=2.0, hair=10.5)
    evaluation(tmp_path / "metrics", "nse1", bg=99.0, skin=71.0, nose=3.0, hair=8.0)
    (tmp_path / "metrics" / "lse_fit.json").write_text('{"l2": 1}')
    done = select(tmp_path, "--threshold=10", "--protocol=miou_per_image")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "selection.json").read_text())
    assert found["kept"] == ["skin", "hair"] and found["dropped"] == ["nose"]
    assert found["extractors"] == ["lse", "nse1"]
    assert found["best_iou"]["hair"] == 10.5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--threshold=99", "--protocol=miou_dataset"), "lower select_categories.threshold"),
        (("--threshold=10", "--protocol=miou"), "miou_per_image, miou_dataset"),
    ],
)
def test_an_empty_selection_and_an_unknown_protocol_are_one_sentence(tmp_path, options, said):
    evaluation(tmp_path / "metrics", "lse", bg=99.0, skin=70.0, nose=2.0, hair=10.5)
    done = select(tmp_path, *options)
    assert done.returncode == 2
    assert re.match(r"error: got .*; wanted ", done.stderr) and said in done.stderr
    assert not (tmp_path / "selection.json").exists()


def test_scores_on_other_labels_are_refused(tmp_path):
    evaluation(tmp_path, "lse", bg=99.0, skin=70.0)
    with pytest.raises(InputError, match="without class nose"):
        read_scores(tmp_path, ["skin", "nose"], "miou_dataset")
