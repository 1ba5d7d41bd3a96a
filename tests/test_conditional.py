import csv
import json

import numpy as np
import pytest
import torch
import toys
from PIL import Image

from pipeline.analysis.fewshot.options import Rule
from pipeline.data.arrays import Group, write_group
from pipeline.data.features import Source
from pipeline.data.mask_files import read_ids, read_mask, read_patch, write_mask
from pipeline.data.palette import rgb
from pipeline.editing.optimize import ByExtractor, ByExtractors, Forward
from pipeline.editing.sampling import pieces as sampling_pieces
from pipeline.editing.sampling import study as sampling
from pipeline.editing.sampling.method import draw_candidates, pick, sample_conditionally
from pipeline.editing.sampling.options import FewShot, Search
from pipeline.editing.sampling.targets import folder_masks, read_masks
from pipeline.extractors.networks import LSE, save_extractor
from pipeline.generators.dcgan import DCGAN
from pipeline.metrics import agreement
from pipeline.metrics.bootstrap import interval_of_mean
from pipeline.metrics.color import diversity, lab
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import write_json
from pipeline.runtime.weights import write_safetensors
from pipeline.teachers.labels import FACE15
from stages import flatten
from stages.measure_sampling import measure_sampling
from stages.sample_conditionally import sample_conditionally as tool

NUM, SIZE, STEM = len(toys.CLASSES), 32, 2
SIZES = {"train": 2, "validation": 1, "test": 2, "pool": 4}


def planted():
    """A real DCGAN whose first tap is relu(z) and relu(-z), one z a class and pixel, and the LSE
    that reads z from it: semantics that are exactly linear in the features.
    """
    network = DCGAN(z_dim=NUM * STEM**2, widths=(2 * NUM, 12, 8, 6), stem=STEM)
    toys.randomize(network, 4)
    first, norm = network.blocks[0][0], network.blocks[0][1]
    norm.weight.data.fill_(1), norm.bias.data.zero_()
    norm.running_mean.zero_(), norm.running_var.fill_(1 - norm.eps)
    weight = torch.zeros_like(first.weight)
    for k in range(NUM):
        for p in range(STEM**2):
            row, y, x = k * STEM**2 + p, p // STEM, p % STEM
            weight[row, k, y, x], weight[row, NUM + k, y, x] = 1, -1
    first.weight.data = weight
    lse = LSE(toys.CLASSES, network.taps[:1])
    lse.set_matrix(torch.cat([torch.eye(NUM), -torch.eye(NUM)]))
    return network.eval().requires_grad_(False), ByExtractor(lse.requires_grad_(False))


def masks_of(generator, segmenter, z):
    logits = segmenter.logits(Forward(generator, "z", segmenter.taps)(z), SIZE)
    return logits.argmax(1).to(torch.uint8).numpy()


def agreements(masks, targets):
    return agreement.agreement_eq7(*agreement.count(masks[:, None], targets, NUM))[:, 0]


# The search


def test_linear_semantics_are_reached():
    generator, segmenter = planted()
    wanted = torch.randn(5, generator.z_dim, generator=torch.Generator().manual_seed(1))
    targets = masks_of(generator, segmenter, wanted)
    keys = [(t, 0) for t in range(5)]
    search = Search(candidates=4, steps=60, learning_rate=0.1)
    z_0, found = sample_conditionally(generator, segmenter, targets, keys, search)
    before = agreements(masks_of(generator, segmenter, z_0), targets)
    after = agreements(masks_of(generator, segmenter, found.last), targets)
    assert after.mean() > 0.9 and after.mean() > before.mean() + 0.2, (before, after)
    again = sample_conditionally(generator, segmenter, targets, keys, search)
    assert torch.equal(again[1].last, found.last) and torch.equal(again[0], z_0)
    alone = sample_conditionally(generator, segmenter, targets[3:4], keys[3:4], search)
    torch.testing.assert_close(alone[1].last, found.last[3:4], rtol=0, atol=1e-4)


def test_several_extractors_search_in_one_batch_as_each_alone():
    """Two extractors that want different latents for the same targets, from the same candidates."""
    (generator, one), (_, other) = planted(), planted()
    matrix = torch.cat([torch.eye(NUM), -torch.eye(NUM)])
    other.extractor.set_matrix(matrix.roll(1, 1) * 1.5)
    wanted = torch.randn(2, generator.z_dim, generator=torch.Generator().manual_seed(1))
    targets, keys = masks_of(generator, one, wanted), [(0, 0), (1, 0)]
    search = Search(candidates=3, steps=8, learning_rate=0.1)
    both = ByExtractors((one.extractor, other.extractor))
    z_0, found = sample_conditionally(generator, both, np.tile(targets, (2, 1, 1)), keys, search)
    assert not torch.equal(found.last[:2], found.last[2:])
    for own, rows in ((one, slice(0, 2)), (other, slice(2, 4))):
        start, alone = sample_conditionally(generator, own, targets, keys, search)
        assert torch.equal(z_0[rows], start)
        torch.testing.assert_close(found.last[rows], alone.last, rtol=0, atol=1e-4)
        torch.testing.assert_close(found.losses[:, rows], alone.losses, rtol=0, atol=1e-4)


def test_the_candidate_with_the_most_matching_pixels_begins():
    generator, segmenter = planted()
    candidates = draw_candidates([(0, 0), (7, 2)], Search(candidates=6), generator.z_dim)
    flat = torch.from_numpy(candidates).flatten(0, 1)
    targets = masks_of(generator, segmenter, flat)[[2, 6 + 5]]
    chosen = pick(Forward(generator, "z", segmenter.taps), segmenter, targets, candidates)
    np.testing.assert_array_equal(chosen.numpy(), candidates[[0, 1], [2, 5]])


def test_candidates_depend_on_their_own_key_alone():
    one = draw_candidates([(3, 1)], Search(candidates=4), 10)
    many = draw_candidates([(0, 0), (3, 1), (3, 2)], Search(candidates=9), 10)
    np.testing.assert_array_equal(one[0], many[1, :4])
    assert not np.array_equal(many[1], many[2])
    other = draw_candidates([(3, 1)], Search(candidates=4, seed=1), 10)
    assert not np.array_equal(one, other)


def test_the_penalty_holds_z():
    """Under a target that all latents satisfy alike, only |z - z_0|^2 and |z|^2 act: to z_0 / 2."""
    generator, segmenter = planted()
    segmenter.extractor.set_matrix(torch.zeros(2 * NUM, NUM))
    search = Search(candidates=1, steps=400, learning_rate=0.03)
    targets = np.zeros((1, SIZE, SIZE), np.uint8)
    z_0, found = sample_conditionally(generator, segmenter, targets, [(0, 0)], search)
    torch.testing.assert_close(found.last, z_0 / 2, rtol=0, atol=5e-3)


def test_a_target_of_other_classes_is_refused():
    generator, segmenter = planted()
    targets = np.full((1, 8, 8), NUM, np.uint8)
    with pytest.raises(InputError, match="got a target with class id 4; wanted ids below 4"):
        sample_conditionally(generator, segmenter, targets, [(0, 0)], Search())
    with pytest.raises(InputError, match="got candidates 0; wanted at least 1"):
        Search(candidates=0)


# Targets


def png(path, ids, mode="L", palette=None):
    image = Image.fromarray(np.asarray(ids, np.uint8), "L" if mode == "P" else None)
    if mode == "P":
        image = image.convert("P")
        image.putdata(np.asarray(ids).ravel().tolist())
        image.putpalette(np.repeat(range(256), 3).tolist() if palette is None else palette)
    image.convert(mode).save(path)
    return path


@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
def test_masks_are_read_from_gray_and_indexed_files(tmp_path):
    ids = np.random.default_rng(0).integers(0, NUM, (16, 16)).astype(np.uint8)
    for mode in ("L", "P"):
        found = read_mask(png(tmp_path / f"{mode}.png", ids, mode), toys.CLASSES, 16)
        np.testing.assert_array_equal(found, ids)
    assert folder_masks(tmp_path, toys.CLASSES, 16, 2).shape == (2, 16, 16)
    with pytest.raises(InputError, match=r"got 2 masks in .*; wanted at least 3"):
        folder_masks(tmp_path, toys.CLASSES, 16, 3)


@pytest.mark.parametrize(
    "ids, size, mode, message",
    [
        (np.zeros((16, 16)), 32, "L", "of 16x16 px; wanted 32x32 px"),
        (np.zeros((16, 12)), None, "L", "of 12x16 px; wanted a square"),
        (np.full((16, 16), 4), 16, "L", "with id 4; wanted ids 0-3"),
        (np.full((16, 16), 255), 16, "L", r"have no label \(id 255\); wanted ids 0-3"),
        (np.zeros((16, 16)), 16, "RGB", "with color #000000; wanted the classes' colors"),
    ],
)
def test_bad_masks_are_one_sentence(tmp_path, ids, size, mode, message):
    with pytest.raises(InputError, match=message):
        read_mask(png(tmp_path / "m.png", ids, mode), toys.CLASSES, size)


def test_masks_of_two_sizes_or_none_are_refused(tmp_path):
    paths = [png(tmp_path / f"{n}.png", np.zeros((n, n))) for n in (8, 16)]
    with pytest.raises(InputError, match="of 16x16 px; wanted 8x8 px"):
        read_masks(paths, toys.CLASSES)
    with pytest.raises(InputError, match="got no target"):
        read_masks([], toys.CLASSES)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match="which is no image"):
        read_mask(tmp_path / "text.png", toys.CLASSES)
    with pytest.raises(InputError, match=r"no file at .*gone\.png; wanted a PNG mask"):
        read_mask(tmp_path / "gone.png", toys.CLASSES)


@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
def test_a_reordered_palette_is_read_by_its_colors(tmp_path):
    """What a drawing program does: the picture looks the same, the indices are others."""
    ids, colors = np.repeat([[0, 1, 2, 3]], 4, 0).astype(np.uint8), rgb(toys.CLASSES)
    write_mask(tmp_path / "own.png", ids, toys.CLASSES)
    np.testing.assert_array_equal(read_mask(tmp_path / "own.png", toys.CLASSES), ids)
    with Image.open(tmp_path / "own.png") as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), colors[ids])
    swapped = png(tmp_path / "swapped.png", ids[:, ::-1], "P", colors[::-1].ravel().tolist())
    with Image.open(swapped) as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), colors[ids])
    np.testing.assert_array_equal(read_mask(swapped, toys.CLASSES), ids)
    colors[0] = 1, 2, 3
    mixed = png(tmp_path / "mixed.png", ids[:, ::-1], "P", colors[::-1].ravel().tolist())
    with pytest.raises(InputError, match="with color #010203; wanted the classes' colors"):
        read_mask(mixed, toys.CLASSES)


@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
def test_targets_edits_and_annotations_read_a_mask_alike(tmp_path):
    """A white class and index 255 in gray look the same; the index tells them apart."""
    classes = ("bg", "skin", "mouth")
    ids = np.repeat([[0, 1, 2, 255]], 4, 0).astype(np.uint8)
    write_mask(tmp_path / "own.png", ids, classes)
    gray = png(tmp_path / "gray.png", ids, "P")
    twice = ids.repeat(2, 0).repeat(2, 1)
    for path in (tmp_path / "own.png", gray):
        np.testing.assert_array_equal(read_ids(path, classes), ids)
        np.testing.assert_array_equal(read_patch(path, classes, (8, 8)), twice)
        with pytest.raises(InputError, match="pixels that have no label"):
            read_mask(path, classes)


# Scores


def test_agreement_by_hand():
    """Two classes besides class 0. Target: 4 px of class 1, none of class 2.

    Sample A hits 2 of 4 px: IoU 1/2, class 2 not shown. Sample B hits all 4 and adds 2 px of class
    2: IoU 1 and 0. eq 7: mean(.5, mean(1, 0)) = .5. By class: class 1 .75, class 2 0: .375.
    """
    target = np.zeros((1, 4, 4), np.uint8)
    target[0, 0] = 1
    masks = np.zeros((1, 2, 4, 4), np.uint8)
    masks[0, 0, 0, :2], masks[0, 1, 0], masks[0, 1, 3, :2] = 1, 1, 2
    pair = agreement.count(masks, target, 3)
    np.testing.assert_allclose(agreement.agreement_eq7(*pair), [[0.5, 0.5]])
    assert agreement.agreement_class_mean(*pair) == pytest.approx(0.375)
    np.testing.assert_allclose(agreement.per_class(*pair)[1:], [0.75, 0])


def test_intervals_resample_targets():
    assert interval_of_mean(np.full(6, 0.3)) == pytest.approx((0.3, 0.3))
    values = np.random.default_rng(0).normal(0.4, 0.1, 50)
    low, high = interval_of_mean(values)
    reach = 1.96 * values.std(ddof=1) / 50**0.5
    assert low == pytest.approx(values.mean() - reach, abs=0.005)
    assert high == pytest.approx(values.mean() + reach, abs=0.005)


def test_lab_of_known_colors():
    known = {  # sRGB under D65, two decimals
        (255, 255, 255): (100, 0, 0),
        (0, 0, 0): (0, 0, 0),
        (255, 0, 0): (53.24, 80.09, 67.20),
        (0, 255, 0): (87.73, -86.18, 83.18),
        (0, 0, 255): (32.30, 79.19, -107.86),
        (128, 128, 128): (53.59, 0, 0),
        (3, 3, 3): (0.82, 0, 0),  # on the line below the knee
    }
    images = np.array(list(known), np.uint8)[:, :, None, None]
    np.testing.assert_allclose(lab(images)[:, :, 0, 0], list(known.values()), atol=0.02)


def test_diversity_is_the_mean_distance_of_pairs():
    black, white, gray = (np.full((3, 4, 4), v, np.uint8) for v in (0, 255, 128))
    found = diversity(np.stack([black, white, gray]))
    assert found == pytest.approx((100 + 53.59 + 46.41) / 3, abs=0.01)
    assert np.isnan(diversity(black[None]))


# The study


@pytest.fixture(scope="module")
def files(tmp_path_factory, checkpoints):
    """A toy study of the 15 face classes, an LSE for it, and two random networks that label."""
    folder = tmp_path_factory.mktemp("sampling")
    checkpoint = checkpoints["dcgan"]
    latents = toys.write_latents(folder / "latents.zarr.zip", checkpoint, SIZES)
    rng, masks = np.random.default_rng(0), folder / "masks.zarr.zip"
    arrays = {
        f"{split}/masks": rng.integers(0, 15, (num, 4, 4))
        .astype(np.uint8)
        .repeat(8, 1)
        .repeat(8, 2)
        for split, num in SIZES.items()
    }
    write_group(masks, arrays, {"classes": list(FACE15)})
    taps = toys.toy_network("dcgan").taps
    facts = {"taps": [vars(tap) for tap in taps], "align_corners": False}
    write_json(folder / "pixels.json", {"facts": facts | {"masks": Group(masks).digest("masks")}})
    lse = LSE(FACE15, taps[:2])  # coarse, so the few-shot fits must be, too
    save_extractor(folder / "lse.safetensors", lse, {})
    for seed, name in enumerate(("unet", "feature_pyramid")):
        weights = folder / f"{name}.safetensors"
        write_safetensors(weights, toys.teacher_tensors(name, seed), {"architecture": name})
    names = ("masks.zarr.zip", "pixels.json", "lse.safetensors")
    networks = ("unet.safetensors", "feature_pyramid.safetensors")
    return [checkpoint, latents, *(folder / name for name in (*names, *networks))]


OPTIONS = {
    "targets": 2, "target_psi": 0.7, "samples": 2, "teacher_samples": 1, "candidates": 2,
    "steps": 1, "learning_rate": 0.05, "truncation_psi": 1.0, "shots": 2, "scs_shots": [2],
    "refits": 2,
    "rates": [0.1], "rate_targets": 1, "repeats": 2, "fewshot_seed": 0, "seed": 0,
    "power": 0.5, "l2": 0.01,
    "iterations": 3, "pixels_per_sample": 32, "labels": "celebamask15", "compute": "float32",
    "device": "cpu", "workers": 1,
}  # fmt: skip


def measure(files, folder, **changed):
    out = [folder / name for name in ("sampled.zarr.zip", "metrics.json", "table.csv")]
    flatten(measure_sampling)(*files, *out, **(OPTIONS | changed))
    return out


@pytest.fixture(scope="module")
def measured(files, tmp_path_factory):
    return measure(files, tmp_path_factory.mktemp("clean"))


def test_the_study_writes_scores_rows_and_samples(measured):
    sampled, metrics, table = measured
    report, group = json.loads(metrics.read_text()), Group(sampled)
    methods = {"teacher", "lse", "fewshot_2"}
    for who in ("own", "teacher", "judge"):
        scores = report[f"masks_by_{who}"]
        assert set(scores) == methods | {"after_minus_before", "minus_teacher"}
        for name in methods:
            best = {"best"} if who == "own" else set()
            assert set(scores[name]) == {"before", "last"} | best
        gain = scores["lse"]["last"]["agreement_eq7"]["mean"]
        gain -= scores["lse"]["before"]["agreement_eq7"]["mean"]
        assert scores["after_minus_before"]["lse"]["mean"] == pytest.approx(gain, abs=0.002)
        assert "over_refits" in scores["fewshot_2"]["last"]
    assert set(report["by_learning_rate"]) == {"0.1"}
    with open(table) as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == (3 * 2 + 1) * 2 * (3 + 2 + 2)  # samples, targets, moments by network
    row = next(
        r for r in rows if (r["method"], r["masks_by"], r["moment"]) == ("lse", "judge", "last")
    )
    masks = group.read("lse", "judge_last").reshape(2, 2, 32, 32)
    found = agreement.agreement_eq7(*agreement.count(masks, group.read("targets", "masks"), 15))
    assert float(row["agreement_eq7"]) == pytest.approx(100 * found[0, 0], abs=0.001)
    assert set(group.splits) == {"targets", "teacher", "lse", "fewshot_2_0", "fewshot_2_1"}


def test_a_killed_study_goes_on_and_gives_the_same(
    files, measured, tmp_path, store_root, monkeypatch
):
    search, done = sampling_pieces.search, []

    def stopped(piece):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(piece.facts)
        return search(piece)

    def folder(kind):
        return list((store_root / "pieces" / kind).glob("*.npz"))

    monkeypatch.setattr(sampling_pieces, "search", stopped)
    with pytest.raises(KeyboardInterrupt):
        measure(files, tmp_path)
    assert len(folder("conditional_samples")) == len(folder("fewshot_fits")) == 2
    again = []

    def counted(piece):
        again.append(piece.facts)
        return search(piece)

    monkeypatch.setattr(sampling_pieces, "search", counted)
    monkeypatch.setattr(sampling.fits, "solve", None)  # the fits are there
    out = measure(files, tmp_path)
    assert len(again) == 4 - 2, "what was done is not done again"
    assert not [facts for facts in again if facts in done]
    for one, other in zip(out[1:], measured[1:], strict=True):
        assert one.read_bytes() == other.read_bytes()
    for name in ("z_last", "images_last"):
        first, second = (Group(paths[0]).read("fewshot_2_1", name) for paths in (out, measured))
        np.testing.assert_array_equal(first, second)


def test_other_shots_make_only_the_few_shot_samples(files, tmp_path, monkeypatch):
    measure(files, tmp_path)
    search, made = sampling_pieces.search, []

    def noted(piece):
        made.append([method.name for method in piece.methods])
        return search(piece)

    monkeypatch.setattr(sampling_pieces, "search", noted)
    measure(files, tmp_path, shots=1, scs_shots=[1], refits=1)
    assert made == [["fewshot"]]
    measure(files, tmp_path)
    assert made == [["fewshot"]], "back again: nothing to do"


def test_a_study_needs_the_teacher(files, tmp_path):
    with pytest.raises(InputError, match="got teacher_samples 0; wanted at least 1"):
        measure(files, tmp_path, teacher_samples=0)


def test_a_complete_study_leaves_nothing_else(measured):
    names = {path.name for path in measured[0].parent.iterdir()}
    assert names == {"sampled.zarr.zip", "metrics.json", "table.csv"}


def test_few_shot_fits_read_the_taps_of_the_lse(files, tmp_path):
    source = Source(str(files[0]), str(files[1]))
    study = sampling.open_study(source, files[2], files[3], files[4])
    rule = Rule(0.5, 0.01, 3, 32)
    few = FewShot(shots=1, scs_shots=(), repeats=2, fewshot_seed=0, rule=rule)
    (method,) = sampling.fit_methods(tmp_path, study, few)
    judges = sampling_pieces.Judges(str(files[5]), str(files[6]), "celebamask15")
    taps = [tap.name for tap in sampling_pieces.segmenter((method,), judges, "cpu").taps]
    assert taps == ["block0", "block1"]


def test_files_of_two_studies_are_refused(files, latents, checkpoints, tmp_path):
    checkpoint, _, masks, pixels, lse, *_ = files
    foreign = tmp_path / "foreign.zarr.zip"
    write_group(foreign, {"test/ws": np.zeros((1, 1, 10), np.float32)}, {"generator": "0" * 16})
    with pytest.raises(InputError, match=f"generator {'0' * 16}; wanted latents of"):
        sampling.open_study(Source(str(checkpoint), str(foreign)), masks, pixels, lse)
    other = Source(str(checkpoints["mobile_stylegan"]), str(latents["mobile_stylegan"]))
    with pytest.raises(InputError, match="which reads tap block0; wanted an extractor of this"):
        sampling.open_study(other, masks, pixels, lse)


def test_an_extractor_of_other_classes_is_refused(files, tmp_path):
    path = tmp_path / "other.safetensors"
    save_extractor(path, LSE(toys.CLASSES, toys.toy_network("dcgan").taps), {})
    judges = sampling_pieces.Judges(str(files[5]), str(files[6]), "celebamask15")
    with pytest.raises(InputError, match="with classes bg, skin, nose, hair; wanted those of"):
        sampling_pieces.segmenter((sampling_pieces.Method("lse", str(path)),), judges, "cpu")


# The tool


def test_the_tool_samples_for_a_mask(files, tmp_path):
    mask, out = tmp_path / "mask.png", tmp_path / "out"
    png(mask, np.zeros((24, 24)))
    flatten(tool)(files[0], files[4], target=[mask], out=out, samples=2, candidates=2, steps=2)
    names = {"0_0.png", "0_0_mask.png", "0_1.png", "0_1_mask.png", "latents.npz"}
    assert {path.name for path in out.iterdir()} == names
    with Image.open(out / "0_1.png") as image, Image.open(out / "0_1_mask.png") as seen:
        assert image.size == (32, 32) and image.mode == "RGB"
        assert seen.size == (24, 24) and seen.mode == "P"
    with np.load(out / "latents.npz") as latents:
        assert latents["z_last"].shape == (2, 10) and latents["losses"].shape == (2, 3)
        assert latents["keys"].tolist() == [[0, 0], [0, 1]]
