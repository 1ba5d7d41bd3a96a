import numpy as np
import pytest
import torch
import toys

from pipeline.data.arrays import Group, write_group
from pipeline.data.features import Source, fill, plan_features, plan_pixels, stream
from pipeline.extractors import fitting, problems, recipe
from pipeline.extractors.fitting import fit_cached, fit_lse, read_columns
from pipeline.extractors.networks import LSE, save_extractor
from pipeline.extractors.prediction import predict_masks
from pipeline.generators.taps import Tap, select
from pipeline.metrics.iou import miou_dataset
from pipeline.runtime.errors import InputError

SIZES = {"train": 40, "validation": 10, "test": 6, "pool": 0}
L2 = [0.01, 0.000001]


class Study:
    """A toy generator whose masks a planted LSE drew: linear fits can find it again."""

    def __init__(self, folder, checkpoint):
        latents = toys.write_latents(folder / "latents.zarr.zip", checkpoint, SIZES)
        self.source = Source(str(checkpoint), str(latents))
        self.taps = self.source.generator().taps
        planted = LSE(toys.CLASSES, self.taps)
        rng = torch.Generator().manual_seed(7)
        matrix = torch.randn(self.channels, len(toys.CLASSES), generator=rng)
        # Blind to the mean feature, else one class would cover nearly everything.
        batches = [f for f, _ in stream(self.source, "train", 0, SIZES["train"], self.taps)]
        mean = torch.cat(
            [torch.cat([f[t.name] for f in batches]).mean((0, 2, 3)) for t in self.taps]
        )
        planted.set_matrix(matrix - torch.outer(mean, mean @ matrix) / mean.square().sum())
        self.masks = {
            f"{split}/masks": np.concatenate(
                [planted.predict(f, 32) for f, _ in stream(self.source, split, 0, num, self.taps)]
                or [np.zeros((0, 32, 32), np.uint8)]
            )
            for split, num in SIZES.items()
        }
        self.masks_path = str(folder / "masks.zarr.zip")
        write_group(self.masks_path, self.masks, {"classes": list(toys.CLASSES)})

    @property
    def channels(self):
        return sum(tap.channels for tap in self.taps)

    def pixels(self, count=256):
        facts = {
            "num_classes": len(toys.CLASSES),
            "classes": list(toys.CLASSES),
            "taps": [vars(tap) for tap in self.taps],
            "channels": self.channels,
            "resolution": 32,
            "pixels_per_sample": count,
            "align_corners": False,
        }
        splits = {split: SIZES[split] for split in ("train", "validation")}
        plan = plan_pixels(facts, self.channels, "float16", splits, 8)
        return fill(plan, self.source, self.taps, 1.0, 1, self.masks_path)

    def native(self, stored="int8", max_resolution=None):
        taps = select(self.taps, max_resolution)
        plan = plan_features({"label_size": 32}, taps, stored, 32, {"train": SIZES["train"]}, 8)
        return fill(plan, self.source, taps, 1.0, 1)


@pytest.fixture(scope="module")
def study(tmp_path_factory, checkpoints):
    return Study(tmp_path_factory.mktemp("study"), checkpoints["mobile_stylegan"])


@pytest.fixture
def float32(monkeypatch):
    """The same numbers on every processor."""
    monkeypatch.setattr(problems, "STORED", torch.float32)


def test_a_planted_extractor_is_found_again(study, float32, tmp_path):
    extractor, facts = fit_lse(study.pixels(), "lse", L2, 100, 100_000, "cpu")
    save_extractor(tmp_path / "lse.safetensors", extractor, {})
    [masks] = predict_masks([str(tmp_path / "lse.safetensors")], study.source, "test", 32, 1)
    scores = miou_dataset(masks, study.masks["test/masks"], len(toys.CLASSES))
    assert scores.mean > 0.9
    assert facts["l2"] == L2[1] and 5 <= facts["iteration"] <= 100
    assert facts["validation_pixels_miou"] == pytest.approx(100 * scores.mean, abs=5)
    best = max(max(point["miou"].values()) for point in facts["validation_curve"])
    assert facts["validation_pixels_miou"] == pytest.approx(best, abs=1e-2), "the best of the curve"
    assert facts["pixels"] == SIZES["train"] * 256
    assert facts["parameters"] == study.channels * len(toys.CLASSES)


def test_halving_the_values_of_l2_chooses_as_solving_for_all_of_them(study, float32, monkeypatch):
    values = [1.0, 0.1, 0.01, 0.001]
    halved, facts = fit_lse(study.pixels(), "lse", values, 20, 100_000, "cpu")
    tried = [len(point["miou"]) for point in facts["validation_curve"]]
    assert tried == [4] * 4 + [2] * 8 + [1] * 4, "iterations 5-8, 9-16, 17-20"
    monkeypatch.setattr(fitting, "HALVED", 100)
    whole, every = fit_lse(study.pixels(), "lse", values, 20, 100_000, "cpu")
    assert len(every["validation_curve"][-1]["miou"]) == 4
    assert (facts["l2"], facts["iteration"]) == (every["l2"], every["iteration"])
    for a, b in zip(halved.weights, whole.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3)


def test_one_pass_for_all_extractors_gives_the_masks_of_each_alone(study, tmp_path):
    torch.manual_seed(0)
    paths = [str(tmp_path / name) for name in ("all.safetensors", "coarse.safetensors")]
    for path, taps in zip(paths, (study.taps, study.taps[:1]), strict=True):
        extractor = LSE(toys.CLASSES, taps)
        for weight in extractor.weights:
            torch.nn.init.normal_(weight)
        save_extractor(path, extractor, {})
    together = predict_masks(paths, study.source, "test", 32, 1)
    apart = [predict_masks([path], study.source, "test", 32, 1)[0] for path in paths]
    assert (together == np.stack(apart)).all() and (apart[0] != apart[1]).any()


def test_the_variants_differ_as_their_names_say(study, float32):
    store = study.pixels()
    biased, _ = fit_lse(store, "lse_biased", [0.001], 6, 10_000, "cpu")
    assert biased.bias is not None and bool(biased.bias.any())
    coarse, _ = fit_lse(store, "lse_coarse", [0.001], 6, 10_000, "cpu")
    assert [tap.name for tap in coarse.taps] == ["4px"], "up to an eighth of 32 px"
    assert coarse.bias is None
    with pytest.raises(InputError, match="wanted one of lse, lse_biased, lse_coarse"):
        fit_lse(store, "nse", [0.001], 6, 10_000, "cpu")


def test_the_budget_bounds_the_pixels(study):
    store, channels = study.pixels(), np.arange(study.channels)
    read = read_columns(store, "train", channels, 1000, "cpu")
    assert len(read.x) == len(read.y) == len(read.weights) == SIZES["train"] * 25 <= 1000
    whole = read_columns(store, "train", channels, 10**9, "cpu")
    assert len(whole.x) == SIZES["train"] * 256
    some = read_columns(store, "train", channels[3:5], 10**9, "cpu")
    assert torch.equal(some.x, whole.x[:, 3:5])
    assert whole.x.dtype == torch.bfloat16
    assert whole.x[0].nbytes == 2 * study.channels
    masks = Group(study.masks_path).read("train", "masks")
    shares = np.bincount(masks.ravel(), minlength=4) / masks.size
    weighted = torch.zeros(4).index_add_(0, whole.y, whole.weights) / whole.weights.sum()
    np.testing.assert_allclose(weighted.numpy(), shares, atol=0.01)


def test_a_split_without_samples_is_named(study):
    store = study.pixels()
    store.plan.splits["validation"] = 0
    with pytest.raises(InputError, match="no samples in validation"):
        fit_lse(store, "lse", [0.1], 5, 1000, "cpu")


def test_adam_learns_from_cached_taps(study, monkeypatch):
    monkeypatch.setattr(recipe, "LEARNING_RATE", 0.05)  # few steps must do
    extractor, facts = fit_cached(
        study.native(), study.masks_path, study.pixels(), "lse", epochs=0.2, device="cpu"
    )
    assert facts["solver"] == "adam" and facts["passes"] >= 192
    assert extractor.taps == study.taps
    parts = stream(study.source, "test", 0, SIZES["test"], study.taps)
    predicted = np.concatenate([extractor.predict(features, 32) for features, _ in parts])
    target = study.masks["test/masks"]
    most = np.bincount(target.ravel()).max() / target.size
    assert (predicted == target).mean() > most + 0.1, "better than the most frequent class"


def test_adam_uses_the_cached_taps_alone_and_has_no_ablations(study):
    pixels, native = study.pixels(), study.native(max_resolution=8)
    extractor, _ = fit_cached(native, study.masks_path, pixels, "lse", epochs=0.1, device="cpu")
    assert [tap.name for tap in extractor.taps] == ["4px", "8px_conv1", "8px_conv2"]
    with pytest.raises(InputError, match="solver adam for lse_biased; wanted lse"):
        fit_cached(native, study.masks_path, pixels, "lse_biased", 0.1, "cpu")


def test_other_masks_of_the_same_samples_relabel_the_pixels(study, tmp_path):
    """Columns, places and weights stay; the classes are those of the other masks there."""
    store = study.pixels()
    swapped = {
        name: (len(toys.CLASSES) - 1 - m).astype(np.uint8) for name, m in study.masks.items()
    }
    write_group(tmp_path / "other.zarr.zip", swapped, {"classes": list(toys.CLASSES)[::-1]})
    every = np.arange(study.channels)
    arguments = (store, "train", every, 40 * 100, "cpu")
    drawn, other = (
        read_columns(*arguments),
        read_columns(*arguments, str(tmp_path / "other.zarr.zip")),
    )
    assert torch.equal(other.x, drawn.x) and torch.equal(other.weights, drawn.weights)
    assert torch.equal(other.y, len(toys.CLASSES) - 1 - drawn.y)
    fitted, _ = fit_lse(store, "lse", L2, 4, 4000, "cpu", str(tmp_path / "other.zarr.zip"))
    assert fitted.classes == toys.CLASSES[::-1]


def test_masks_of_another_study_are_refused(study, tmp_path):
    write_group(tmp_path / "few.zarr.zip", {"train/masks": np.zeros((3, 32, 32), np.uint8)}, {})
    with pytest.raises(InputError, match=r"3 masks in train .* 40"):
        read_columns(
            study.pixels(),
            "train",
            np.arange(4),
            100,
            "cpu",
            str(tmp_path / "few.zarr.zip"),
        )


def test_an_extractor_of_another_study_is_refused(study, tmp_path):
    taps = [Tap("64px", "layers.9", 5, 64)]
    save_extractor(tmp_path / "other.safetensors", LSE(toys.CLASSES, taps), {})
    with pytest.raises(InputError, match=r"reads tap 64px.*whose taps are 4px"):
        predict_masks([str(tmp_path / "other.safetensors")], study.source, "test", 32, 1)
    save_extractor(tmp_path / "own.safetensors", LSE(toys.CLASSES, study.taps), {})
    with pytest.raises(InputError, match=r"with classes bg, skin.*those of the masks: bg, car"):
        predict_masks(
            [str(tmp_path / "own.safetensors")], study.source, "test", 32, 1, ["bg", "car"]
        )


def test_a_class_that_no_sample_has_does_not_break_a_fit(study, tmp_path):
    write_group(tmp_path / "masks.zarr.zip", study.masks, {"classes": [*toys.CLASSES, "hat"]})
    fitted, report = fit_lse(
        study.pixels(), "lse", L2, 6, 4000, "cpu", str(tmp_path / "masks.zarr.zip")
    )
    assert fitted.classes[-1] == "hat" and np.isfinite(report["validation_pixels_miou"])
    features = next(stream(study.source, "test", 0, 6, study.taps))[0]
    assert (fitted.predict(features, 32) == len(toys.CLASSES)).mean() < 0.01
