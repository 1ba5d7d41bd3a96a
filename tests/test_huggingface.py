"""Small random models of the real classes, saved as the hub has them; no network."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers

from pipeline.runtime.errors import InputError
from pipeline.teachers.registry import load_teacher

NAMES = ("background", "skin", "l_eye", "r_eye", "hair", "hat")


def named(count: int) -> dict:
    names = {i: name for i, name in enumerate(NAMES[:count])}
    return {"id2label": names, "label2id": {name: i for i, name in names.items()}}


def segformer(count: int = len(NAMES)):
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 8, 16, 16],
        depths=[1] * 4,
        num_attention_heads=[1] * 4,
        decoder_hidden_size=16,
        **named(count),
    )
    return transformers.SegformerForSemanticSegmentation(config)


def upernet():
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = transformers.ConvNextConfig(
        hidden_sizes=[8] * 4, depths=[1] * 4, out_features=stages
    )
    config = transformers.UperNetConfig(
        backbone_config=backbone, hidden_size=8, use_auxiliary_head=False, **named(6)
    )
    return transformers.UperNetForSemanticSegmentation(config)


def mask2former():
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = transformers.SwinConfig(
        **{"embed_dim": 8, "depths": [1] * 4, "num_heads": [1] * 4, "window_size": 4},
        image_size=64,
        out_features=stages,
    )
    sizes = dict.fromkeys(("feature_size", "mask_feature_size", "hidden_dim"), 32)
    layers = {"encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 2}
    config = transformers.Mask2FormerConfig(
        **{"backbone_config": backbone, "num_queries": 5, **sizes, **layers, **named(6)},
        encoder_feedforward_dim=16,
        dim_feedforward=16,
    )
    return transformers.Mask2FormerForUniversalSegmentation(config)


FACTS = {"do_resize": True, "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255}
FACTS |= {"do_normalize": True, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
SIDES = {
    "segformer": {"height": 64, "width": 96},
    "upernet": {"height": 64, "width": 64},
    "mask2former": {"shortest_edge": 64, "longest_edge": 128},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for make in (segformer, upernet, mask2former):
        torch.manual_seed(0)
        path = folder / make.__name__
        make().eval().save_pretrained(path)
        facts = FACTS | {"size": SIDES[make.__name__], "image_processor_type": "x"}
        (path / "preprocessor_config.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture
def images():
    levels = torch.randint(0, 256, (2, 3, 48, 48), generator=torch.Generator().manual_seed(0))
    return levels.float() / 127.5 - 1


@pytest.mark.parametrize("name", SIDES)
def test_every_kind_of_model_labels_at_the_size_asked_for(models, images, name):
    teacher = load_teacher(models / name)
    assert teacher.classes == NAMES, "its own id2label"
    masks = teacher.label(images, 20)
    assert masks.shape == (2, 20, 20) and masks.dtype == np.uint8
    total = teacher.probabilities(images, 20).sum(1)
    torch.testing.assert_close(total, torch.ones(2, 20, 20))


@pytest.mark.parametrize("name", SIDES)
def test_a_latent_can_be_moved_through_the_model(models, images, name):
    x = images.requires_grad_()
    teacher = load_teacher(models / name)
    teacher.log_probabilities(x, 20)[:, 1].sum().backward()
    assert x.grad.isfinite().all() and float(x.grad.abs().max()) > 0
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize(
    "name, processor",
    [
        ("segformer", "SegformerImageProcessorPil"),
        ("mask2former", "Mask2FormerImageProcessorPil"),
    ],
)
def test_images_are_prepared_as_the_models_own_processor_does(models, images, name, processor):
    facts = FACTS | {"size": SIDES[name]}
    theirs = getattr(transformers, processor)(**facts)
    pixels = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    expected = theirs(images=list(pixels), return_tensors="pt")["pixel_values"]
    found = load_teacher(models / name).network.prepare(images)
    assert found.shape == expected.shape
    # They round to 1/255 after resizing, which is 0.02 after the division by 0.2.
    torch.testing.assert_close(found, expected, rtol=0, atol=0.021)


def test_masks_are_those_of_the_models_own_postprocessing(models, images):
    teacher = load_teacher(models / "mask2former")
    with torch.inference_mode():
        output = teacher.network.model(pixel_values=teacher.network.prepare(images))
        found = teacher.network(images).exp()
    classes = output.class_queries_logits.softmax(-1)[..., :-1]
    masks = output.masks_queries_logits.sigmoid()
    expected = torch.stack([(classes[..., c, None, None] * masks).sum(1) for c in range(6)], 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-6)


def test_a_merge_from_a_file_sums_probabilities(models, images, tmp_path):
    path = tmp_path / "five.yaml"
    path.write_text(
        "aliases: {background: bg}\n"
        "classes: {bg: [bg], skin: [1], eye: [l_eye, r_eye], hair: [hair]}\n"
    )
    plain = load_teacher(models / "segformer").probabilities(images, 20)
    merged = load_teacher(models / "segformer", path)
    assert merged.classes == ("bg", "skin", "eye", "hair")
    found = merged.probabilities(images, 20)
    torch.testing.assert_close(found[:, 2], plain[:, 2] + plain[:, 3])
    torch.testing.assert_close(found.sum(1), 1 - plain[:, 5], msg="the hat is dropped")


def test_none_of_these_wins_where_all_kept_logits_are_negative(models, images, tmp_path):
    path = tmp_path / "scene.yaml"
    path.write_text("none_of_these: nothing\nclasses: {skin: [1], hair: [4]}\n")
    teacher = load_teacher(models / "segformer", path)
    assert teacher.classes == ("nothing", "skin", "hair")
    logits = teacher.network_logits(images, 20)
    shift = logits[:, [1, 4]].amax(1).median()  # half the pixels below zero
    teacher.network.model.decode_head.classifier.bias.data -= shift
    kept = logits[:, [1, 4]] - shift
    expected = torch.cat([torch.zeros_like(kept[:, :1]), kept], 1).argmax(1).numpy()
    np.testing.assert_array_equal(teacher.label(images, 20), expected)
    assert 0.3 < (expected == 0).mean() < 0.7
    with pytest.raises(InputError, match="which scores masks, not pixels"):
        load_teacher(models / "mask2former", path)


def edited(source, folder, **facts):
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | facts))
    return folder


@pytest.mark.parametrize(
    "damage, message",
    [
        ("no config", "without config.json; wanted a Hugging Face model"),
        ("classifier", "a SegformerForImageClassification; wanted a model for semantic segm"),
        ("names", "seven, which transformers cannot load|without the weights decode_head.classif"),
        ("no preprocessing", "without a readable preprocessor_config.json"),
        ("labels", "'bald'; wanted ids 0-5 or classes of the network: background, skin, l_eye"),
        ("twice", "sends 'skin' to a and to b; wanted each of the network's classes at most once"),
        ("the 19", "label space celebamask15 for a network with classes background, skin, l_eye"),
    ],
)
def test_what_is_no_teacher_is_one_sentence(models, tmp_path, damage, message):
    source, labels = models / "segformer", None
    folder = tmp_path / "seven"
    if damage == "no config":
        folder.mkdir()
    elif damage == "classifier":
        edited(source, folder, architectures=["SegformerForImageClassification"])
    elif damage == "names":
        edited(source, folder, id2label={str(i): f"c{i}" for i in range(7)}, label2id={})
    else:
        edited(source, folder)
    if damage == "no preprocessing":
        (folder / "preprocessor_config.json").unlink()
    if damage in {"labels", "twice"}:
        labels = tmp_path / "labels.yaml"
        classes = "{a: [bald], b: [1]}" if damage == "labels" else "{a: [1], b: [skin]}"
        labels.write_text(f"classes: {classes}\n")
    if damage == "the 19":
        labels = "celebamask15"
    with pytest.raises(InputError, match=message):
        load_teacher(folder, labels)
