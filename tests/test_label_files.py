"""Label spaces as data, the published UNet, and what is said without transformers."""

import sys
from pathlib import Path

import pytest
import torch
import toys

from pipeline.runtime.errors import InputError
from pipeline.teachers.labels import CELEBAMASK19, FACE15, label_space, read_space
from pipeline.teachers.networks import PublishedUNet
from pipeline.teachers.registry import load_teacher

ROOT = Path(__file__).parents[1]
ADE = tuple(f"class{i}" for i in range(150))
# 0-based ids of ADE20K that the reference keeps, by generator.
SCENES = {
    "stylegan2_bedroom": [0, 3, 5, 7, 8, 15, 18, 22, 36, 39, 57, 66, 82, 85, 139, 148],
    "stylegan2_church": [1, 2, 4, 6, 9, 11, 12, 13, 17, 20, 53],
    "stylegan_bedroom": [0, 3, 5, 7, 8, 15, 18, 19, 22, 28, 35, 36, 39, 44, 57, 66, 82, 85, 139],
    "stylegan_church": [1, 2, 4, 6, 9, 11, 12, 17, 43, 52],
    "pggan_bedroom": [0, 3, 5, 7, 8, 15, 18, 22, 36, 57, 82, 85, 139],
    "pggan_church": [1, 2, 4, 6, 9, 43],
}


@pytest.mark.parametrize("name", SCENES)
def test_the_papers_scene_lists(name):
    space = read_space(ROOT / "labels" / f"ade20k_{name}.yaml", ADE)
    assert space.zero_logit and len(space.classes) == 1 + len(SCENES[name])
    kept = [i for i, c in enumerate(space.merge) if c >= 0]
    assert kept == SCENES[name]
    assert [space.merge[i] for i in kept] == list(range(1, 1 + len(kept)))


def test_a_face_parser_with_words_of_its_own_merges_to_the_papers_15():
    network = ("background", *CELEBAMASK19[1:])
    space = read_space(ROOT / "labels" / "faces15.yaml", network)
    assert (space.classes, space.merge) == (FACE15, label_space("celebamask15").merge)
    assert read_space("celebamask15", network).merge == space.merge
    shuffled = network[::-1]
    moved = read_space(ROOT / "labels" / "faces15.yaml", shuffled)
    assert moved.merge == space.merge[::-1], "by name, not by place"


@pytest.mark.parametrize(
    "text, message",
    [
        ("classes: {}", "without a mapping `classes`"),
        ("classes: {a: [0], b: [1]}\nclasess: 3", "with 'clasess'; wanted only aliases, classes"),
        ("classes: {a: [0], b: [9]}", "class 'b' takes 9; wanted ids 0-2 or classes of the netw"),
        ("classes: {a: [0], b: [1]}\nrest: c", "rest goes to 'c'; wanted one of a, b"),
        ("classes: {a: [0]}", "1 classes of .*, 1 of them different; wanted 2 to 150"),
        ("classes: {a: [0", "which is not YAML"),
    ],
)
def test_a_wrong_merge_is_one_sentence(tmp_path, text, message):
    path = tmp_path / "labels.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_space(path, ("x", "y", "z"))
    with pytest.raises(InputError, match="no label space at"):
        read_space(tmp_path / "gone.yaml", ("x", "y"))


def test_rest_and_native():
    names = ("door ", "wall", "door")
    assert read_space("native", names).classes == ("door", "wall", "door (2)")
    with pytest.raises(InputError, match="151 classes of native"):
        read_space("native", [str(i) for i in range(151)])


def test_the_rest_goes_where_the_file_says(tmp_path):
    path = tmp_path / "labels.yaml"
    path.write_text("classes: {other: [], sky: [sky]}\nrest: other\n")
    space = read_space(path, ("wall", "sky", "sea"))
    assert (space.classes, space.merge) == (("other", "sky"), (0, 1, 0))


def test_the_published_unet_is_known_by_its_keys(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.teachers.registry.fast_bfloat16", lambda device: False)
    network = toys.randomize(PublishedUNet(15), 0).eval()
    parameters = sum(p.numel() for p in network.parameters())
    assert parameters == 1_944_287, "as the paper's teacher"
    path = tmp_path / "faceparse_unet_512.pth"
    torch.save({f"module.{k}": v for k, v in network.state_dict().items()}, path)
    teacher = load_teacher(path)
    assert teacher.classes == FACE15 and teacher.input_size == 512
    images = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        expected = network(images).argmax(1).numpy()
    assert (teacher.label(images, 512) == expected).mean() > 0.9999, "ties may round either way"
    torch.save(PublishedUNet(19).state_dict(), path)
    assert load_teacher(path).classes == FACE15, "19 classes are merged to the paper's 15"


@pytest.mark.parametrize(
    "value, message",
    [
        ({"layer1.weight": torch.zeros(1)}, "with layer1.weight, ...; wanted the UNet of CelebAM"),
        (PublishedUNet(4).state_dict(), "of 4 classes; wanted 15 or 19"),
        (PublishedUNet(15, (8, 16, 32, 64, 128)).state_dict(), "whose tensors do not fit"),
        (print, "torch will not read as plain weights"),
    ],
)
def test_other_weights_are_refused(tmp_path, value, message):
    torch.save(value, tmp_path / "x.pth")
    with pytest.raises(InputError, match=message):
        load_teacher(tmp_path / "x.pth")


def test_without_transformers_the_command_to_install_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"without the package transformers; .* pip install"):
        load_teacher(tmp_path)
    with pytest.raises(InputError, match="nvidia/segformer-b0, a Hugging Face model"):
        load_teacher("nvidia/segformer-b0")
