"""Generated samples as a labeled data set: labels, bytes, resuming, dropping, layouts."""

import csv
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import toys
from PIL import Image

from pipeline.analysis.dataset import coco, export, samples
from pipeline.analysis.dataset.committee import Committee, jensen_shannon
from pipeline.analysis.dataset.export import export_dataset
from pipeline.analysis.dataset.options import Export
from pipeline.analysis.fewshot import selection
from pipeline.data.features import Source
from pipeline.data.images import to_uint8
from pipeline.data.mask_files import read_mask
from pipeline.extractors.networks import LSE, NSE1, save_extractor
from pipeline.generators.latents import sample_z
from pipeline.generators.registry import load_generator
from pipeline.generators.taps import record
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json
from pipeline.runtime.options import Machine
from pipeline.teachers.faces import load_pairs
from stages import export_dataset as stage

PLAN = Export(samples=10, size=16, label_size=16, psis=(0.5, 1.0), layouts=("folder", "coco"))
FAMILY = "mobile_stylegan"


def fitted(path: Path, checkpoint: Path, seed: int, kind: type = LSE, **settings) -> str:
    extractor = kind(toys.CLASSES, load_generator(checkpoint).taps, **settings)
    toys.randomize(extractor, seed)
    save_extractor(path, extractor.requires_grad_(False), {})
    return str(path)


@pytest.fixture(scope="module")
def given(checkpoints, tmp_path_factory):
    """A generator, and three LSEs of its maps."""
    folder = tmp_path_factory.mktemp("committee")
    checkpoint = checkpoints[FAMILY]
    members = [fitted(folder / f"{i}.safetensors", checkpoint, i) for i in range(3)]
    return Source(str(checkpoint), "unread"), members


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "samples.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(given, tmp_path_factory):
    """A data set, made by one process."""
    folder = tmp_path_factory.mktemp("whole") / "set"
    export_dataset(*given, folder, PLAN, num_workers=1)
    return folder


def drawn(source, seed, psi, taps):
    generator = source.generator()
    with torch.inference_mode(), record(generator, taps) as features:
        z = torch.from_numpy(sample_z([seed], generator.z_dim))
        image = generator.synthesis(generator.mapping(z, psi))
    return features, image


def test_a_single_extractors_masks_are_its_predictions(given, tmp_path):
    source, (member, *_) = given
    export_dataset(source, [member], tmp_path / "set", replace(PLAN, samples=3, format="png"), 1)
    extractor = samples.load_committee([member]).members[0]
    for row in table(tmp_path / "set"):
        features, image = drawn(source, int(row["seed"]), float(row["psi"]), extractor.taps)
        mask = read_mask(tmp_path / "set" / "masks" / f"{row['name']}.png", toys.CLASSES)
        assert np.array_equal(mask, extractor.predict(features, 16)[0])
        with Image.open(tmp_path / "set" / "images" / f"{row['name']}.png") as file:
            assert np.array_equal(np.asarray(file).transpose(2, 0, 1), to_uint8(image, 16)[0])
        assert float(row["uncertainty"]) == 0 and not (tmp_path / "set" / "uncertainty").exists()
    assert [float(row["psi"]) for row in table(tmp_path / "set")] == [0.5, 1.0, 0.5]


def test_a_committee_is_the_mean_of_its_members_and_says_where_they_differ(given, whole):
    source, members = given
    extractors = samples.load_committee(members).members
    for row in table(whole)[:4]:
        features, _ = drawn(source, int(row["seed"]), float(row["psi"]), extractors[0].taps)
        told = np.stack([one.logits(features, 16).softmax(1)[0].numpy() for one in extractors])
        by_pixel = told.reshape(3, len(toys.CLASSES), -1).transpose(0, 2, 1)
        doubt = selection.jensen_shannon(by_pixel).reshape(16, 16) / np.log(3)
        assert float(row["uncertainty"]) == pytest.approx(doubt.mean(), abs=1e-5)
        if row["kept"] == "1":
            mask = read_mask(whole / "masks" / f"{row['name']}.png", toys.CLASSES)
            assert (mask == told.mean(0).argmax(0)).mean() > 0.99
            with Image.open(whole / "uncertainty" / f"{row['name']}.png") as file:
                assert np.abs(np.asarray(file) / 255 - doubt).max() < 0.6 / 255


@pytest.mark.parametrize(
    ("members", "wanted"),
    [
        pytest.param([[1, 0, 0]] * 3, 0, id="agreed"),
        pytest.param([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.log(3), id="each sure of another"),
        pytest.param([[1, 0, 0], [0, 1, 0]], np.log(2), id="two members"),
        pytest.param([[0.5, 0.5, 0]] * 2, 0, id="unsure alike"),
    ],
)
def test_the_divergence_is_known_at_its_ends(members, wanted):
    found = jensen_shannon(torch.tensor(members).float()[None, :, :, None, None])
    assert found.item() == pytest.approx(wanted, abs=1e-6)


def test_members_of_other_kinds_and_taps_vote_together(given, checkpoints, tmp_path):
    source, (member, *_) = given
    nonlinear = fitted(tmp_path / "nse.safetensors", checkpoints[FAMILY], 7, NSE1)
    biased = fitted(tmp_path / "biased.safetensors", checkpoints[FAMILY], 8, bias=True)
    committee = samples.load_committee([member, nonlinear, biased])
    features, _ = drawn(source, 5, 1.0, committee.taps_of(source.generator().taps))
    found = committee.label(features, 16, 32)
    assert found.masks.shape == (1, 32, 32) and found.disagreement.shape == (1, 16, 16)
    alone = [one.logits(features, 16).softmax(1) for one in committee.members]
    near = Committee(committee.members[:1]).label(features, 16, 16).masks.numpy()
    assert np.array_equal(near, committee.members[0].predict(features, 16))
    wanted = jensen_shannon(torch.stack(alone, 1)) / np.log(3)
    torch.testing.assert_close(found.disagreement, wanted.float(), atol=0.01, rtol=0.1)


def test_bytes_are_the_same_by_two_processes(given, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "PER_TASK", 3)
    torch.set_num_threads(2)
    export_dataset(*given, tmp_path / "set", PLAN, num_workers=2)
    torch.set_num_threads(1)
    assert contents(tmp_path / "set") == contents(whole)


def test_killed_it_goes_on_and_gives_the_same_bytes(given, whole, tmp_path, monkeypatch):
    write, written = samples._write, []

    def raising(job, committee, sample, *rest):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(sample)
        write(job, committee, sample, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(samples, "_write", raising)
        export_dataset(*given, tmp_path / "set", PLAN, num_workers=1)
    assert read_json(tmp_path / "set" / "manifest.json")["complete"] is False
    half = tmp_path / "set" / "images" / f"{written[0].name}.jpg"
    half.write_bytes(b"damaged")
    written.clear()

    def counted(job, committee, sample, *rest):
        written.append(sample)
        write(job, committee, sample, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(samples, "_write", counted)
        export_dataset(*given, tmp_path / "set", PLAN, num_workers=1)
    assert len(written) == 7, "those that were lost, and the damaged one"
    assert contents(tmp_path / "set") == contents(whole)

    with monkeypatch.context() as patch:
        patch.setattr(samples, "make_samples", None)  # nothing is left to do
        export_dataset(*given, tmp_path / "set", PLAN, num_workers=1)
    assert contents(tmp_path / "set") == contents(whole)


def test_a_set_grows_and_shrinks_to_the_bytes_of_one_made_at_once(given, whole, tmp_path):
    few = replace(PLAN, samples=6, drop=0.5)
    export_dataset(*given, tmp_path / "set", few, num_workers=1)
    first = contents(tmp_path / "set")
    assert len(table(tmp_path / "set")) == 6 and sum(p.startswith("images/") for p in first) == 3
    export_dataset(*given, tmp_path / "set", PLAN, num_workers=1)
    assert contents(tmp_path / "set") == contents(whole), "what was dropped came back"
    export_dataset(*given, tmp_path / "set", few, num_workers=1)
    assert contents(tmp_path / "set") == first


def test_the_most_uncertain_are_dropped(whole):
    rows = table(whole)
    doubts = [float(row["uncertainty"]) for row in rows]
    dropped = [row for row in rows if row["kept"] == "0"]
    assert [float(row["uncertainty"]) for row in dropped] == [max(doubts)]
    kept = {row["name"] for row in rows} - {dropped[0]["name"]}
    for kind in ("images", "masks", "uncertainty"):
        assert {path.stem for path in (whole / kind).iterdir()} == kept


def test_the_manifest_says_how_to_make_any_image_again(given, whole, tmp_path):
    manifest = read_json(whole / "manifest.json")
    assert manifest["complete"] and (manifest["samples"], manifest["kept"]) == (10, 9)
    row = next(row for row in reversed(table(whole)) if row["kept"] == "1")
    alone = replace(PLAN, samples=1, first_seed=int(row["seed"]), psis=(float(row["psi"]),))
    export_dataset(*given, tmp_path / "one", replace(alone, drop=0.0), num_workers=1)
    for name in (f"images/{row['name']}.jpg", f"masks/{row['name']}.png"):
        assert (tmp_path / "one" / name).read_bytes() == (whole / name).read_bytes()


def test_a_teachers_training_reads_the_folder(whole):
    pairs = load_pairs(whole, 16, len(toys.CLASSES))
    assert pairs.images.shape == (9, 3, 16, 16)
    assert (whole / "classes.txt").read_text().split() == [*toys.CLASSES]


@pytest.mark.parametrize("format", ["png", "webp"])
def test_images_are_written_in_other_formats(given, tmp_path, format):
    source, members = given
    plan = replace(PLAN, samples=2, format=format, drop=0.0)
    export_dataset(source, members, tmp_path / "set", plan, num_workers=1)
    files = sorted((tmp_path / "set" / "images").iterdir())
    assert len(files) == 2
    for file in files:
        with Image.open(file) as image:
            assert image.format == format.upper() and image.size == (16, 16)


def decoded(counts: str) -> list[int]:
    """COCO's text of run lengths, read as its tools do."""
    found, place = [], 0
    while place < len(counts):
        x = shift = 0
        while True:
            letter = ord(counts[place]) - 48
            x |= (letter & 31) << shift
            place, shift = place + 1, shift + 5
            if not letter & 32:
                break
        x = x - (1 << shift) if letter & 16 else x
        found.append(x + found[-2] if len(found) > 2 else x)
    return found


def test_coco_regions_make_the_masks_again():
    rng = np.random.default_rng(0)
    for size in ((1, 1), (7, 5), (40, 60)):
        mask = rng.integers(0, 4, size).astype(np.uint8)
        mask = mask if size[0] < 40 else np.kron(mask[:4, :6], np.ones((10, 10), np.uint8))
        again = np.zeros_like(mask)
        for region in coco.annotations(mask):
            counts = decoded(region["segmentation"]["counts"])
            assert sum(counts) == mask.size
            inside = np.repeat(np.arange(len(counts)) % 2, counts).reshape(size[::-1]).T > 0
            left, top, width, height = region["bbox"]
            assert inside.sum() == inside[top : top + height, left : left + width].sum()
            assert inside.sum() == region["area"]
            again[inside] = region["category_id"]
        assert np.array_equal(again, mask)


def test_the_coco_file_counts_what_the_masks_show(whole):
    found = json.loads((whole / "coco.json").read_text())
    assert found["categories"] == [{"id": i, "name": n} for i, n in enumerate(toys.CLASSES) if i]
    names = {image["id"]: image["file_name"] for image in found["images"]}
    assert len(names) == 9 and all((whole / "images" / name).exists() for name in names.values())
    shown = {
        (i, int(label))
        for i, name in names.items()
        for label in np.unique(read_mask(whole / "masks" / f"{Path(name).stem}.png", toys.CLASSES))
    }
    told = {(one["image_id"], one["category_id"]) for one in found["annotations"]}
    assert told == {pair for pair in shown if pair[1]}
    assert [one["id"] for one in found["annotations"]] == [*range(1, len(told) + 1)]


def test_cocos_own_tools_open_it(whole):
    tools = pytest.importorskip("pycocotools.coco", exc_type=ImportError)
    opened = tools.COCO(whole / "coco.json")
    for i in opened.getImgIds():
        (image,) = opened.loadImgs(i)
        again = np.zeros((16, 16), np.uint8)
        for region in opened.loadAnns(opened.getAnnIds(i)):
            inside = opened.annToMask(region)
            assert inside.sum() == region["area"]
            again[inside > 0] = region["category_id"]
        mask = whole / "masks" / f"{Path(image['file_name']).stem}.png"
        assert np.array_equal(again, read_mask(mask, toys.CLASSES))


def test_the_hugging_face_layout_names_every_file(given, tmp_path):
    plan = replace(PLAN, layouts=("huggingface",))
    export_dataset(*given, tmp_path / "set", plan, num_workers=1)
    folder = tmp_path / "set"
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert [line["seed"] for line in lines] == [
        int(row["seed"]) for row in table(folder) if row["kept"] == "1"
    ]
    for line in lines:
        assert (folder / line["file_name"]).exists() and (folder / line["mask_file_name"]).exists()


@pytest.mark.filterwarnings("ignore")  # of the package's own
@pytest.mark.parametrize("layout", ["huggingface", "parquet"])
def test_hugging_faces_datasets_opens_it(given, tmp_path, layout):
    if find_spec("datasets") is None:
        pytest.skip("no package datasets")
    import datasets

    export_dataset(*given, tmp_path / "set", replace(PLAN, layouts=(layout,)), num_workers=1)
    where = tmp_path / "set" / ("parquet" if layout == "parquet" else "")
    opened = datasets.load_dataset(str(where), cache_dir=str(tmp_path / "cache"))["train"]
    assert len(opened) == 9
    for one in opened:
        name = f"seed{one['seed']}-psi{one['psi']:g}"
        mask = read_mask(tmp_path / "set" / "masks" / f"{name}.png", toys.CLASSES)
        assert np.array_equal(np.asarray(one["mask"]), mask) and one["image"].size == (16, 16)


def test_parquet_needs_a_package(given, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    plan = replace(PLAN, samples=1, drop=0.0, layouts=("parquet",))
    with pytest.raises(InputError, match=r"without the package pyarrow; .*pip install pyarrow"):
        export_dataset(*given, tmp_path / "set", plan, num_workers=1)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"samples": 0}, "samples 0; wanted 1 or more"),
        ({"size": 64}, "size 64; wanted 1 to 32 px, the generator's"),
        ({"label_size": 0}, "label_size 0; wanted 1 px or more"),
        ({"quality": 101}, "quality 101; wanted 1 to 100"),
        ({"psis": ()}, "psis .*; wanted above 0"),
        ({"psis": (0.5, -1.0)}, "psis .*; wanted above 0"),
        ({"drop": 1.0}, "drop 1.0; wanted 0 or more, and less than 1"),
        ({"first_seed": -1}, "first_seed -1; wanted 0 or more"),
        ({"format": "gif"}, "format 'gif'; wanted one of jpeg, png, webp"),
        ({"layouts": ("voc",)}, "layout 'voc'; wanted one of folder, coco, huggingface, parquet"),
    ],
)
def test_plans_that_make_no_set_get_a_sentence(given, tmp_path, changes, sentence):
    with pytest.raises(InputError, match=sentence):
        export_dataset(*given, tmp_path / "set", replace(PLAN, **changes), num_workers=1)
    assert not (tmp_path / "set").exists()


def test_extractors_that_do_not_go_together_get_a_sentence(given, checkpoints, tmp_path):
    source, members = given
    foreign = fitted(tmp_path / "foreign.safetensors", checkpoints["dcgan"], 0)
    other = LSE(("bg", "other"), source.generator().taps)
    save_extractor(tmp_path / "other.safetensors", other, {})
    for some, sentence in [
        ([foreign], "reads tap .*wanted an extractor of this generator"),
        ([members[0], str(tmp_path / "other.safetensors")], "classes bg, other; wanted those of"),
        ([members[0], members[0]], "one extractor twice; wanted a committee"),
        ([str(tmp_path / "gone.safetensors")], "no file at"),
    ]:
        with pytest.raises(InputError, match=sentence):
            export_dataset(source, some, tmp_path / "set", PLAN, num_workers=1)
    with pytest.raises(InputError, match=r"drop 0\.2 with a single extractor"):
        export_dataset(source, members[:1], tmp_path / "set", replace(PLAN, drop=0.2), 1)


def test_a_folder_of_something_else_is_left_alone(given, whole, tmp_path):
    source, members = given
    before = contents(whole)
    for some, changes, sentence in [
        (members, {"size": 32}, r"another size \(16\); wanted that of 32"),
        (members, {"psis": (1.0,)}, "another psis"),
        (members[:2], {}, "another extractors"),
    ]:
        with pytest.raises(InputError, match=sentence):
            export_dataset(source, some, whole, replace(PLAN, **changes), num_workers=1)
    assert contents(whole) == before
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match="with files of something else"):
        export_dataset(source, members, tmp_path, PLAN, num_workers=1)


def test_the_command_writes_the_set(given, whole, tmp_path, capsys):
    source, members = given
    stage.export_dataset(
        Path(source.checkpoint),
        tmp_path / "set",
        extractor=[Path(path) for path in members],
        plan=PLAN,
        machine=Machine(device="cpu", compute="float32", workers=1),
    )
    assert contents(tmp_path / "set") == contents(whole)
    assert capsys.readouterr().out == f"9 of 10 samples kept in {tmp_path / 'set'}\n"
