"""Seven classes that are no face's go from images to tables and figures."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import toys

from pipeline.data.arrays import write_group
from pipeline.data.features import Source, stream
from pipeline.data.images import to_uint8
from pipeline.data.pixels import draw_pixels, hypercolumns
from pipeline.extractors.networks import LSE, save_extractor
from pipeline.extractors.prediction import predict_masks
from pipeline.extractors.problems import problem
from pipeline.extractors.solvers import lbfgs
from pipeline.metrics.iou import PixelCounts, summary
from pipeline.reporting import fewshot as few
from pipeline.reporting import sampling, tables
from pipeline.reporting.curves import confusion_figure
from pipeline.reporting.figures import mask_figure
from pipeline.reporting.headline import headline
from pipeline.reporting.palette import COLORS, class_colors, colorize, rgb
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import write_json
from pipeline.teachers.labeling import Job, label_images
from stages import flatten
from stages.judge_teacher import judge_teacher

SIZES = {"train": 8, "test": 3}
CLASSES = ("nothing", "sky", "tree", "road", "wall", "door", "lamp")
MERGE = """
none_of_these: nothing
classes: {sky: [1, 17], tree: [2], road: [3], wall: [9], door: [13], lamp: [6]}
"""


@pytest.fixture(scope="module")
def metrics(tmp_path_factory, checkpoints):
    """A study of the toy generator, labeled by the toy teacher in seven classes of its own."""
    folder, checkpoint = tmp_path_factory.mktemp("seven"), checkpoints["dcgan"]
    (folder / "scene.yaml").write_text(MERGE)
    latents = toys.write_latents(folder / "latents.zarr.zip", checkpoint, SIZES)
    source = Source(str(checkpoint), str(latents))
    images = {}
    for split, count in SIZES.items():
        with torch.inference_mode():
            drawn = source.generator().synthesis(source.ws(split, 0, count))
        images[f"{split}/images"] = to_uint8(drawn, 32)
    write_group(folder / "images.zarr.zip", images, {})
    teacher = toys.teacher_of_many_classes(folder / "teacher.safetensors", images["train/images"])
    job = Job(str(teacher), (str(folder / "scene.yaml"),), str(folder / "images.zarr.zip"))
    (masks,) = label_images(job, ["train", "test"], 1)
    write_group(folder / "masks.zarr.zip", masks, {"classes": list(CLASSES)})
    lse = fitted(source, masks["train/masks"])
    path = folder / "lse.safetensors"
    save_extractor(path, lse, {"name": "lse"})
    (predicted,) = predict_masks([str(path)], source, "test", 32, 1, list(CLASSES))
    report = {}
    for who in ("teacher", "judge"):
        counts = PixelCounts(len(CLASSES))
        counts.add(predicted, masks["test/masks"])
        report[f"against_{who}"] = summary(counts, CLASSES)
    write_json(folder / "metrics/scene/lse.json", report)
    write_json(folder / "metrics/scene/ceiling.json", report["against_judge"])
    return folder, tables.read_metrics(folder / "metrics"), masks, predicted, images


def fitted(source, masks):
    """The LSE of some sampled pixels."""
    generator, columns, labels, weights = source.generator(), [], [], []
    for row, (features, _) in enumerate(
        pair
        for i in range(len(masks))
        for pair in stream(source, "train", i, i + 1, generator.taps)
    ):
        drawn = draw_pixels(masks[row], 128, row, len(CLASSES))
        sample = [features[tap.name][0] for tap in generator.taps]
        columns.append(hypercolumns(sample, drawn.places, 32, False))
        labels.append(torch.from_numpy(drawn.classes).long())
        weights.append(torch.from_numpy(drawn.weights / len(masks)))
    data = problem(torch.cat(columns), torch.cat(labels), torch.cat(weights), len(CLASSES), False)
    extractor = LSE(CLASSES, generator.taps)
    extractor.set_matrix(lbfgs(data, [1e-3], 20).matrix[0])
    return extractor.requires_grad_(False)


def test_seven_classes_are_labeled_and_found_again(metrics):
    _, found, masks, predicted, _ = metrics
    shown = np.unique(masks["train/masks"])
    assert len(shown) >= 4 and shown.max() < 7, "several of the seven occur"
    agreement = (predicted == masks["test/masks"]).mean()
    most = np.bincount(masks["test/masks"].ravel()).max() / masks["test/masks"].size
    assert agreement > most, "better than the commonest class everywhere"
    assert set(found["scene"]["lse"]["against_teacher"]["miou_per_image"]["per_class"]) == set(
        CLASSES
    )


def test_tables_of_other_classes_have_no_column_of_the_papers_faces(metrics):
    _, found, *_ = metrics
    table = tables.face_class_table(found, "scene")
    assert list(table.columns) == ["class", "LSE"]
    assert set(table["class"]) == {*CLASSES, "mean"}
    assert set(tables.class_table(found, "scene")["class"]) >= set(CLASSES)
    assert tables.extractor_table(found)["masks from"].tolist() == ["LSE", "teacher"]
    assert headline(found["scene"], 16)["lse_miou_per_image"] > 0
    value = {"mean": 1.0, "standard_deviation": 0, "maximum_deviation": 0, "of_full_lse": 1.0}
    shots = dict.fromkeys(tables.PROTOCOLS, value)
    shots |= {"repeats": 1, "labeled_pixels": 1}
    for classes, paper in ((CLASSES, None), (("skin", "hair"), 55.6)):
        sweep = {"full": {"1": shots | {"iou_per_image": dict.fromkeys(classes, 1.0)}}}
        (row,) = few.shots_table({"x": {few.SWEEP: sweep}})["paper, FFHQ"]
        assert row == paper or (paper is None and pd.isna(row))


def test_the_paper_stands_beside_faces_alone():
    score = {"mean": 1.0, "low": 0.0, "high": 2.0}
    for classes, known in ((["bg", "skin"], True), (["sky", "sea"], False)):
        last = {"agreement_eq7": score, "agreement_class_mean": {"mean": 1.0}}
        moment = {k: last | {"per_class": dict.fromkeys(classes, 1.0)} for k in ("before", "last")}
        by = {f"masks_by_{who}": {"teacher": moment} for who in ("judge", "teacher")}
        spread = {"diversity_cielab": {"teacher": {"before": 1.0, "last": 1.0}}}
        files = {"sampling": by | spread | {"targets": 1, "samples": 1, "teacher_samples": 1}}
        table = sampling.agreement_table({"x": files})
        assert ("paper, FFHQ" in table) is known


def test_figures_of_seven_and_of_150_classes(metrics, tmp_path):
    _, _, masks, predicted, images = metrics
    pictures = {"teacher": masks["test/masks"], "LSE": predicted}
    titles = [f"test {i}" for i in range(3)]
    many = [f"class {i}" for i in range(150)]
    for name, classes in (("seven", list(CLASSES)), ("many", many)):
        path = tmp_path / f"{name}.png"
        mask_figure(path, images["test/images"], pictures, classes, titles)
        confusion_figure(tmp_path / f"{name}_confusion.png", np.eye(len(classes)), classes)
        assert path.stat().st_size > 5000
        assert (tmp_path / f"{name}_confusion.png").stat().st_size > 5000


@pytest.mark.parametrize("count", [2, 7, 20, 150])
def test_every_class_has_a_color_of_its_own(count):
    classes = ["bg", "hair", *(f"class {i}" for i in range(count - 2))]
    colors = class_colors(classes)
    assert len(set(colors)) == count and colors[:2] == [COLORS["bg"], COLORS["hair"]]
    values = rgb(classes).astype(float)
    gaps = np.abs(values[:, None] - values[None]).sum(-1) + 999 * np.eye(count)
    assert gaps.min() >= (40 if count <= 20 else 6), "few are told apart with ease"
    np.testing.assert_array_equal(colorize(np.array([[1]]), classes)[0, 0], values[1])


def test_a_judge_of_other_classes_is_refused(metrics, tmp_path):
    judge = flatten(judge_teacher)
    folder, *_ = metrics
    arguments = (
        folder / "images.zarr.zip",
        folder / "masks.zarr.zip",
        folder / "teacher.safetensors",
    )
    outs = tmp_path / "judge.zarr.zip", tmp_path / "ceiling.json"
    with pytest.raises(
        InputError, match=r"with classes bg, skin, .*; wanted the teacher's: nothing"
    ):
        judge(*arguments, *outs, labels="celebamask15", device="cpu", workers=1)
    flatten(judge_teacher)(
        *arguments, *outs, labels=str(folder / "scene.yaml"), device="cpu", workers=1
    )
    assert json.loads(outs[1].read_text())["miou_dataset"]["mean"] == 100.0, "the same network"
