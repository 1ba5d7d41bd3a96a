import numpy as np
import pytest
import torch
import toys
from PIL import Image

from pipeline.data.arrays import Group, write_group
from pipeline.data.images import to_float
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import write_json
from pipeline.runtime.weights import write_safetensors
from pipeline.teachers.faces import augment, load_pairs, sampling_weights
from pipeline.teachers.labeling import Job, label_images, label_rows, label_selected
from pipeline.teachers.labels import CELEBAMASK19, FLIP19, LABEL_SPACES
from pipeline.teachers.networks import NETWORKS
from pipeline.teachers.registry import load_teacher
from stages import flatten
from stages.label_selected import label_selected as label_stage

SKIN, L_EYE, R_EYE, HAIR = (CELEBAMASK19.index(n) for n in ("skin", "l_eye", "r_eye", "hair"))


@pytest.fixture(scope="module")
def faces():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


# Label spaces


def test_the_papers_merge():
    space = LABEL_SPACES["celebamask15"]
    assert space.merge == (0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 7, 8, 9, 10, 11, 12, 13, 13, 14)
    merged = [space.classes[i] for i in space.merge]
    plain = [name.removeprefix("l_").removeprefix("r_") for name in CELEBAMASK19]
    lips = {"u_lip": "u_lip", "lip": "l_lip", "neck_l": "neck"}
    assert merged == [lips.get(name, name) for name in plain]
    ids = np.array([[4, 5, 17], [16, 18, 0]], np.uint8)
    np.testing.assert_array_equal(space.merge_ids(ids), [[4, 4, 13], [13, 14, 0]])
    assert space.merge_ids(ids).dtype == np.uint8


def test_flipping_exchanges_left_and_right_only():
    assert [FLIP19[i] for i in FLIP19] == list(range(19)), "twice is nothing"
    swapped = {CELEBAMASK19[i]: CELEBAMASK19[j] for i, j in enumerate(FLIP19) if i != j}
    pairs = {
        f"{a}_{part}": f"{b}_{part}" for part in ("eye", "brow", "ear") for a, b in ("lr", "rl")
    }
    assert swapped == pairs
    merge = LABEL_SPACES["celebamask15"].merge
    assert all(merge[i] == merge[j] for i, j in enumerate(FLIP19)), "merged classes have no side"


def test_a_selection_keeps_the_order_and_class_0_and_drops_the_rest():
    space = LABEL_SPACES["celebamask15"].keep(["hair", "eye"])
    assert space.classes == ("bg", "eye", "hair")
    kept = {i: c for i, c in enumerate(space.merge) if c >= 0}
    assert kept == {0: 0, 4: 1, 5: 1, 13: 2}
    with pytest.raises(InputError, match="class 'beard' to keep"):
        LABEL_SPACES["celebamask15"].keep(["beard"])


def test_a_dropped_class_goes_to_the_likeliest_kept_one(teacher_weights, faces):
    """As with the kept logits alone: not to the background."""
    full = load_teacher(teacher_weights, "celebamask19")
    rows = [0, 3, 9, 14]
    kept = load_teacher(teacher_weights, "celebamask19", keep=[CELEBAMASK19[i] for i in rows[1:]])
    wanted = full.probabilities(faces, 32)[:, rows]
    torch.testing.assert_close(kept.probabilities(faces, 32), wanted)
    np.testing.assert_array_equal(kept.label(faces, 32), wanted.argmax(1))


# The contract of a teacher


@pytest.mark.parametrize("architecture", NETWORKS)
def test_networks_work_at_half_resolution(architecture):
    network = toys.randomize(NETWORKS[architecture](7), 0).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 64, 96)).shape == (1, 7, 32, 48)


def test_probabilities_are_merged_and_sum_to_one(teacher_weights, faces):
    merged, plain = (
        load_teacher(teacher_weights, labels).probabilities(faces, 32)
        for labels in ("celebamask15", "celebamask19")
    )
    assert merged.shape == (2, 15, 32, 32) and plain.shape == (2, 19, 32, 32)
    torch.testing.assert_close(merged.sum(1), torch.ones(2, 32, 32))
    assert plain.std() > 0.01, "random weights that tell classes apart"
    for new in range(15):
        parts = [old for old, m in enumerate(LABEL_SPACES["celebamask15"].merge) if m == new]
        torch.testing.assert_close(merged[:, new], plain[:, parts].sum(1))


def test_the_merged_class_wins_by_its_sum(teacher_weights, faces):
    # Not by the largest part: two eyes of 0.3 each beat a nose of 0.4.
    teacher = load_teacher(teacher_weights)
    probabilities = teacher.probabilities(faces, 64)
    np.testing.assert_array_equal(teacher.label(faces, 64), probabilities.argmax(1).numpy())


@pytest.mark.parametrize("resolution", [64, 256])
@pytest.mark.parametrize("size", [48, 256])
def test_masks_have_the_size_asked_for(teacher_weights, resolution, size):
    teacher = load_teacher(teacher_weights)
    masks = teacher.label(torch.zeros(1, 3, resolution, resolution), size)
    assert masks.shape == (1, size, size) and masks.dtype == np.uint8
    assert masks.max() < len(teacher.classes) == 15


def test_probabilities_carry_gradients_to_the_image(teacher_weights, faces):
    images = faces[:1].clone().requires_grad_()
    load_teacher(teacher_weights).probabilities(images, 32)[:, 1].sum().backward()
    assert images.grad.isfinite().all() and float(images.grad.abs().max()) > 0


def test_pixels_outside_the_range_are_clamped(teacher_weights, faces):
    teacher = load_teacher(teacher_weights)
    wild = faces * 3
    expected = teacher.probabilities(wild.clamp(-1, 1), 32)
    torch.testing.assert_close(teacher.probabilities(wild, 32), expected)


def test_wrong_teachers_are_refused(tmp_path, teacher_weights, checkpoints):
    tensors, path = toys.teacher_tensors("unet"), tmp_path / "x.safetensors"
    with pytest.raises(InputError, match="no file at"):
        load_teacher(path)
    with pytest.raises(InputError, match="names no teacher architecture"):
        load_teacher(checkpoints["dcgan"])
    with pytest.raises(InputError, match="'ade20k'; wanted one of celebamask19, celebamask15"):
        load_teacher(teacher_weights, "ade20k")
    write_safetensors(path, tensors, {"architecture": "vit"})
    with pytest.raises(InputError, match="'vit'; wanted one of unet, feature_pyramid"):
        load_teacher(path)
    write_safetensors(path, tensors, {"architecture": "feature_pyramid"})
    with pytest.raises(InputError, match=str(path)):
        load_teacher(path)


@pytest.fixture
def stored_images(tmp_path):
    """Noise, and from the seventh image on plain colors."""
    rng = np.random.default_rng(0)
    images = {
        f"{split}/images": rng.integers(0, 256, (num, 3, 32, 32)).astype(np.uint8)
        for split, num in {"train": 18, "test": 2}.items()  # 18: more than a batch
    }
    images["train/images"][6:] = images["train/images"][6:, :, :1, :1]
    write_group(tmp_path / "images", images, {})
    return tmp_path / "images"


def test_stored_images_are_labeled_split_by_split(stored_images, teacher_weights):
    images = {"train/images": Group(stored_images).read("train", "images")}
    job = Job(str(teacher_weights), ("celebamask15",), str(stored_images))
    (masks,) = label_images(job, ["train", "test"], 1)
    assert {name: values.shape for name, values in masks.items()} == {
        "train/masks": (18, 32, 32),
        "test/masks": (2, 32, 32),
    }
    expected = load_teacher(teacher_weights).label(to_float(images["train/images"][17:]), 32)
    np.testing.assert_array_equal(masks["train/masks"][17:], expected)


def test_one_pass_gives_the_masks_of_every_label_space(stored_images, teacher_weights):
    spaces = ("celebamask15", "celebamask19")
    job = Job(str(teacher_weights), spaces, str(stored_images))
    together = label_images(job, ["train", "test"], 1)
    for space, found in zip(spaces, together, strict=True):
        (alone,) = label_images(Job(job.teacher, (space,), job.images), ["train", "test"], 1)
        for name, masks in alone.items():
            np.testing.assert_array_equal(found[name], masks)


def test_selecting_classes_gives_what_labeling_all_images_again_gives(
    tmp_path, stored_images, monkeypatch
):
    images = Group(stored_images).read("train", "images")
    teacher = toys.teacher_of_many_classes(tmp_path / "teacher.safetensors", images)
    job = Job(str(teacher), ("celebamask19",), str(stored_images))
    (masks,) = label_images(job, ["train", "test"], 1)
    write_group(tmp_path / "full", masks, {"classes": list(CELEBAMASK19)})
    shown = [set(np.unique(mask)) for mask in masks["train/masks"]]
    some = next(i for i in range(1, 19) if 0 < sum(i in ids for ids in shown) < len(shown))
    kept = [name for i, name in enumerate(CELEBAMASK19) if i not in (0, some)]
    again = []

    def spy(job, rows, workers):
        again.append(rows)
        return label_rows(job, rows, workers)

    monkeypatch.setattr("pipeline.teachers.labeling.label_rows", spy)
    found = label_selected(job, Group(tmp_path / "full"), kept, 1)
    assert again[0]["train"] == [row for row, ids in enumerate(shown) if some in ids]
    monkeypatch.undo()
    (expected,) = label_images(
        Job(job.teacher, job.labels, job.images, keep=tuple(kept)), ["train", "test"], 1
    )
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_the_stage_labels_the_selected_classes(tmp_path, stored_images, teacher_weights):
    job = Job(str(teacher_weights), ("celebamask19",), str(stored_images))
    (masks,) = label_images(job, ["train", "test"], 1)
    full, selection, out = (tmp_path / name for name in ("full", "selection.json", "selected"))
    write_group(full, masks, {"classes": list(CELEBAMASK19), "teacher": "x"})
    write_json(selection, {"kept": ["skin", "hair"]})
    options = {"labels": "celebamask19", "device": "cpu", "workers": 1}
    flatten(label_stage)(stored_images, teacher_weights, full, selection, out, **options)
    found, images = Group(out), Group(stored_images).read("test", "images")
    assert found.attributes["classes"] == ["bg", "skin", "hair"]
    teacher = load_teacher(teacher_weights, "celebamask19", keep=["skin", "hair"])
    expected = teacher.label(to_float(images), 32)
    np.testing.assert_array_equal(found.read("test", "masks"), expected)


# Pairs of images and masks


def write_pair(folder, name, image, mask):
    for part, values in {"images": image, "masks": mask}.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(folder / part / f"{name}.png")


@pytest.fixture
def folder(tmp_path):
    for index, name in enumerate(["b", "a"]):
        image = np.full((8, 8, 3), 10 * index, np.uint8)
        image[::2] += 100
        mask = np.zeros((8, 8), np.uint8)
        mask[:4, 4:] = 18
        write_pair(tmp_path / "faces", name, image, mask)
    return tmp_path / "faces"


def test_pairs_are_read_by_name(folder):
    pairs = load_pairs(folder, 4, 19)
    assert pairs.images.shape == (2, 3, 4, 4) and pairs.images.dtype == torch.uint8
    assert pairs.images[:, 0, 0, 0].tolist() == [60, 50], "a before b, area-averaged"
    expected = torch.zeros(4, 4, dtype=torch.uint8)
    expected[:2, 2:] = 18
    assert torch.equal(pairs.masks[0], expected), "ids are never averaged"
    assert torch.equal(pairs.part(slice(1, 2)).images, pairs.images[1:])


def test_the_digest_names_the_content(folder):
    digest = load_pairs(folder, 4, 19).digest
    assert load_pairs(folder, 8, 19).digest == digest
    mask = np.zeros((8, 8), np.uint8)
    mask[0, 0] = 1
    Image.fromarray(mask).save(folder / "masks" / "b.png")
    assert load_pairs(folder, 4, 19).digest != digest


def test_broken_folders_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match="no images in"):
        load_pairs(tmp_path / "nothing", 8, 19)
    with pytest.raises(InputError, match=r"masks/\w\.png with id 18; wanted ids 0-17"):
        load_pairs(folder, 8, 18)
    Image.fromarray(np.zeros((4, 8), np.uint8)).save(folder / "masks" / "b.png")
    with pytest.raises(InputError, match=r"b\.png of mode L and size \(8, 4\)"):
        load_pairs(folder, 8, 19)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "masks" / "b.png")
    with pytest.raises(InputError, match=r"b\.png of mode RGB"):
        load_pairs(folder, 8, 19)
    (folder / "masks" / "a.png").unlink()
    with pytest.raises(InputError, match=r"a\.png without a mask; wanted .*masks/a\.png"):
        load_pairs(folder, 8, 19)


def test_images_with_a_rare_class_are_drawn_more_often():
    masks = torch.zeros(20, 4, 4, dtype=torch.uint8)
    masks[3, 0, 0] = 2
    masks[:10, 1] = 1
    weights = sampling_weights(masks, 4)
    assert weights.argmax() == 3 and 1 < weights[3] <= 5
    assert torch.all(weights[4:10] == 1) and torch.all(weights[10:] == 1)


# Augmentation


def test_augmented_images_and_masks_stay_aligned():
    # Blobs of hair on skin, hair bright and skin dark: wherever a blob goes, its brightness goes.
    rng = torch.Generator().manual_seed(0)
    blobs = (torch.rand(16, 8, 8, generator=rng) < 0.5).repeat_interleave(16, 1)
    hair = blobs.repeat_interleave(16, 2)
    masks = torch.where(hair, HAIR, SKIN).to(torch.uint8)
    images = torch.where(hair, 200, 60).to(torch.uint8)[:, None].repeat(1, 3, 1, 1)
    drawn, labels, _ = augment(images, masks, rng)
    assert drawn.shape == (16, 3, 128, 128) and drawn.dtype == torch.float32
    assert labels.shape == (16, 64, 64) and labels.dtype == torch.int64
    assert set(labels.unique().tolist()) == {SKIN, HAIR}
    assert float(drawn.abs().max()) <= 1
    bright = torch.nn.functional.avg_pool2d(drawn.mean(1), 2).flatten(1)
    is_hair = (labels == HAIR).flatten(1).float()
    alike = [float(torch.corrcoef(torch.stack(p))[0, 1]) for p in zip(bright, is_hair, strict=True)]
    assert np.median(alike) > 0.9 and min(alike) > 0.5, "blur, noise and gray patches cost some"
    assert not torch.equal(labels[0], labels[1])


def test_a_flipped_face_keeps_its_left_on_the_left():
    # Left half bright and "left eye", right half dark and "right eye".
    masks = torch.full((24, 128, 128), L_EYE, dtype=torch.uint8)
    masks[:, :, 64:] = R_EYE
    images = torch.where(masks == L_EYE, 220, 40).to(torch.uint8)[:, None].repeat(1, 3, 1, 1)
    drawn, labels, _ = augment(images, masks, torch.Generator().manual_seed(0))
    flipped = []
    for image, label in zip(drawn, labels, strict=True):
        x = torch.arange(64.0).expand(64, 64)
        assert x[label == L_EYE].mean() < x[label == R_EYE].mean(), "names follow the side"
        bright = torch.nn.functional.avg_pool2d(image.mean(0)[None], 2)[0]
        flipped.append(bool(bright[label == L_EYE].mean() < bright[label == R_EYE].mean()))
    assert 4 < sum(flipped) < 20, "about half of the pictures are mirrored"


def test_augmentation_without_strength_only_flips(faces):
    images = ((faces + 1) * 127.5).to(torch.uint8).repeat(8, 1, 1, 1)
    masks = (images[:, 0] > 127).to(torch.uint8)  # background and skin have no side
    drawn, labels, _ = augment(images, masks, torch.Generator().manual_seed(0), strength=0.0)
    plain, flips = images.float() / 127.5 - 1, 0
    for image, label, x in zip(drawn, labels, plain, strict=True):
        flipped = not torch.allclose(image, x, atol=1e-4)
        torch.testing.assert_close(image, x.flip(-1) if flipped else x, rtol=0, atol=1e-4)
        assert label.shape == (32, 32)
        flips += flipped
    assert 4 < flips < 12


def test_augmentation_is_seeded(faces):
    images = ((faces + 1) * 127.5).to(torch.uint8)
    images = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    masks = torch.zeros(2, 128, 128, dtype=torch.uint8)
    first, again, other = (
        augment(images, masks, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
