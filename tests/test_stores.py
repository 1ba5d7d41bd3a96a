import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import toy_store
import toys
import zarr
from toy_store import PLAN, fill, values
from typer.testing import CliRunner

from pipeline.data import features, plans, shards, store_care, stores
from pipeline.data.features import Source, plan_features
from pipeline.data.plans import Shard
from pipeline.data.store_care import verify
from pipeline.data.stores import Store, open_store, write_manifest
from pipeline.generators.registry import load_generator
from pipeline.runtime.errors import Damaged, InputError
from pipeline.runtime.files import read_json, write_json
from pipeline.runtime.pieces import Kind
from stages import store as store_tool

COMMAND = ["python", toy_store.__file__]


@pytest.fixture
def store():
    store = Store(PLAN)
    fill(store)
    return store


@pytest.fixture
def manifest(store, tmp_path):
    path = tmp_path / "data" / "features" / "toy.json"
    write_manifest(path, store, COMMAND)
    return path


def files_of(store, shard):
    return [store.path / name for name in store.hashes(shard)]


def assert_intact(store):
    assert store.missing() == [] and store.damaged() == []
    for shard in PLAN.shards():
        found = store.read(shard.split, slice(shard.start, shard.stop))
        for name, expected in values(shard).items():
            np.testing.assert_array_equal(found[name], expected)


# Planning


def test_plan_counts_bytes_and_shards():
    sample = 3 * 4 * 4 * 1 + 2 * 3 * 3 * 2 + 2 * 4
    assert PLAN.bytes_per_sample == sample
    assert PLAN.bytes == 13 * sample
    ranges = [(s.name, s.start, s.stop) for s in PLAN.shards()]
    assert ranges == [
        ("train/0", 0, 4),
        ("train/1", 4, 8),
        ("train/2", 8, 10),
        ("validation/0", 0, 3),
    ]


def test_planned_bytes_are_the_bytes_on_disk(store):
    size = sum(path.stat().st_size for shard in PLAN.shards() for path in files_of(store, shard))
    indices = 16 * 4 * len(PLAN.arrays) * len(PLAN.shards())  # of the shards; a few bytes a chunk
    assert PLAN.bytes <= size <= PLAN.bytes + indices + 4 * PLAN.bytes_per_sample


def test_a_plan_above_max_gib_is_refused_with_the_ways_out(capsys, store_root):
    big = replace(PLAN, splits={"train": 10_000_000}, samples_per_shard=10_000)
    with pytest.raises(InputError) as error:
        big.check(0.5, 0.0, big.shards()[:1])
    for words in (
        "wanted at most max_gib = 0.5 GiB",
        "fewer samples",
        "lower max_tap_resolution",
        "streaming",
        "raise max_gib",
    ):
        assert words in str(error.value)
    plan = capsys.readouterr().err
    assert "10000000 samples" in plan and f"{big.bytes / 2**30:.2f} GiB on disk" in plan
    assert not store_root.exists(), "refused before anything is written"


def test_a_disk_too_small_is_refused(monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(plans.shutil, "disk_usage", lambda path: usage(10**6, 0, PLAN.bytes))
    with pytest.raises(InputError, match=r"GiB free at .*PIPELINE_STORE"):
        PLAN.check(1.0, 0.0, PLAN.shards())
    PLAN.check(1.0, 0.0, PLAN.shards()[:2])  # what is there already needs no space


def test_the_fingerprint_covers_values_and_ignores_order():
    changes = {
        "facts": PLAN.facts | {"version": 2},
        "arrays": PLAN.arrays[:2],
        "splits": PLAN.splits | {"train": 11},
        "samples_per_shard": 5,
        "kind": "pixels",
    }
    prints = {replace(PLAN, **{name: value}).fingerprint for name, value in changes.items()}
    assert len(prints | {PLAN.fingerprint}) == len(changes) + 1
    turned = {name: dict(reversed(getattr(PLAN, name).items())) for name in ("facts", "splits")}
    assert replace(PLAN, **turned).fingerprint == PLAN.fingerprint


def test_where_stores_live(monkeypatch, tmp_path):
    assert stores.store_root() == tmp_path / "store"
    monkeypatch.delenv("PIPELINE_STORE")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "project"))
    assert stores.store_root() == tmp_path / "project" / ".store"
    monkeypatch.delenv("DVC_ROOT")
    monkeypatch.chdir(tmp_path)
    assert stores.store_root() == tmp_path / ".store"


# Writing and reading


def test_what_is_written_is_read(store):
    assert_intact(store)
    one = store.read("train", 5, ["tap"])
    assert list(one) == ["tap"] and one["tap"].shape == (1, 2, 3, 3)
    across = store.read("train", slice(3, 9), ["tap"])["tap"]  # over two shard borders
    np.testing.assert_array_equal(across[1], values(PLAN.shards()[1])["tap"][0])
    assert fill(store) == [], "nothing is made twice"


def test_a_view_is_what_reading_gives(store):
    for split, size in store.plan.splits.items():
        for array in store.plan.arrays:
            for row in range(size):
                read = store.read(split, row, [array.name])[array.name][0]
                np.testing.assert_array_equal(store.view(split, array.name, row), read)


def test_rows_are_slices_of_what_was_written(store):
    whole = np.concatenate([values(s)["tap"] for s in PLAN.shards() if s.split == "train"])
    rows = store.rows("train", "tap")
    assert rows.shape == whole.shape and rows.dtype == whole.dtype
    for wanted in (slice(None), slice(3, 9), slice(8, 99), slice(None, None, -3), slice(5, 5)):
        np.testing.assert_array_equal(rows[wanted], whole[wanted])
    assert store.rows("pool", "tap")[:].shape == (0, *whole.shape[1:])
    for row in (-1, 10, 11):  # the file has room for the last one
        with pytest.raises(IndexError, match=f"sample {row} of 10"):
            rows.view(row)


def test_a_view_copies_nothing_and_writes_nothing(store):
    view = store.view("train", "tap", 5)
    assert not view.flags.owndata
    view[:] = 0
    assert_intact(store)


def test_shards_are_those_that_zarr_writes(store, tmp_path):
    other = Store(PLAN, tmp_path / "zarr")
    other.create()
    for shard in PLAN.shards():
        group = zarr.open_group(str(other.path / shard.split), mode="r+")
        for name, found in values(shard).items():
            array = group[name].with_config({"write_empty_chunks": True})
            array[shard.start : shard.stop] = found
        for path in files_of(store, shard):
            theirs = other.path / path.relative_to(store.path)
            assert path.read_bytes() == theirs.read_bytes(), path


@pytest.mark.parametrize("per_shard", [1, 3, 4, 8, 20])
def test_zarr_reads_what_we_write(tmp_path, per_shard):
    plan = replace(PLAN, samples_per_shard=per_shard)
    store = Store(plan, tmp_path)
    store.create()
    for shard in plan.shards():
        store.write(shard, values(shard))
    for split, size in plan.splits.items():
        expected = values(Shard(split, 0, 0, size))
        for name, array in zarr.open_group(str(store.path / split), mode="r").arrays():
            np.testing.assert_array_equal(array[:], expected[name])
            np.testing.assert_array_equal(store.read(split, slice(None))[name], expected[name])


def test_a_plan_allocates_what_a_shard_takes(store):
    shard = PLAN.shards()[1]
    arrays = PLAN.empty(shard.stop - shard.start)
    for name, found in values(shard).items():
        arrays[name][:] = found
    store.write(shard, arrays)
    assert_intact(store)


def test_unknown_names_are_refused(store):
    with pytest.raises(InputError, match="split 'test'; wanted one of train, validation, pool"):
        store.read("test", 0)
    with pytest.raises(InputError, match="array 'other'; wanted one of"):
        store.read("train", 0, ["other"])


@pytest.mark.parametrize("cuts", [(1, 2, 3), (3,), (2, 2)], ids=str)
def test_parts_give_the_files_of_the_whole_shard(store, tmp_path, cuts):
    other = Store(PLAN, tmp_path)
    other.create()
    for shard in PLAN.shards():
        arrays = values(shard)
        split = {name: np.split(x, [c for c in cuts if c < len(x)]) for name, x in arrays.items()}
        others = (dict(zip(split, part, strict=True)) for part in zip(*split.values(), strict=True))
        other.write_parts(shard, others)
        assert other.hashes(shard) == store.hashes(shard)
    assert other.damaged() == []


def test_a_shard_whose_parts_fail_is_missing(store):
    shard = PLAN.shards()[1]

    def failing():
        yield {name: x[:1] for name, x in values(shard).items()}
        raise KeyboardInterrupt

    for parts, error in ((failing(), KeyboardInterrupt), ([], AssertionError)):
        with pytest.raises(error):
            store.write_parts(shard, parts)
        assert store.missing() == [shard] and not list(store.path.glob("**/*.partial"))
    store.write(shard, values(shard))
    assert store.missing() == store.damaged() == []


def test_equal_values_give_equal_files(store, tmp_path):
    other = Store(PLAN, tmp_path / "elsewhere")
    with other.lock():
        other.create()
        for shard in reversed(PLAN.shards()):
            other.write(shard, values(shard))
    assert all(store.hashes(s) == other.hashes(s) for s in PLAN.shards())


def test_an_uncommitted_shard_is_missing(store):
    shard = PLAN.shards()[1]
    (record,) = [p for p in (store.path / "committed").iterdir() if p.stem == "train.1"]
    content = record.read_text()
    record.unlink()
    assert store.missing() == [shard]
    record.write_text(content[: len(content) // 2])
    assert store.missing() == [shard], "a damaged record commits nothing"
    assert fill(store) == [shard]
    assert_intact(store)


def test_writing_over_a_damaged_shard(store):
    shard = PLAN.shards()[1]
    for path in files_of(store, shard):
        path.write_bytes(b"\0" * 10)
    store.write(shard, values(shard))
    assert_intact(store)


# Damage and repair


def corrupt(path):
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize("damage", [corrupt, truncate, Path.unlink], ids=lambda f: f.__name__)
@pytest.mark.parametrize("index", [0, -1], ids=["first file", "last file"])
def test_verify_finds_damage_and_opening_heals_it(store, manifest, damage, index):
    assert verify(store) == []
    shard = PLAN.shards()[2]
    damage(files_of(store, shard)[index])
    assert verify(store) == ["train/2"]
    assert verify(store, repair=True) == ["train/2"]
    assert store.missing() == [shard]
    assert_intact(open_store(manifest))


def cut(path):
    path.write_bytes(path.read_bytes()[:9])


@pytest.mark.parametrize("damage", [corrupt, cut], ids=lambda f: f.__name__)
@pytest.mark.parametrize("index", range(3))
def test_reading_damaged_bytes_names_the_file_and_drops_the_shard(store, manifest, damage, index):
    shard = PLAN.shards()[2]
    file = files_of(store, shard)[index]
    damage(file)
    with pytest.raises(Damaged, match=f"damaged bytes in {file}"):
        store.read(shard.split, slice(shard.start, shard.stop))
    assert store.missing() == [shard]
    shards.VERIFIED.clear()
    assert_intact(open_store(manifest))


def test_a_chunk_is_verified_once_a_process(store, monkeypatch):
    calls = []
    monkeypatch.setattr(shards.Rows, "_verify", lambda *chunk: calls.append(chunk[1:]))
    for _ in range(3):
        for row in range(10):
            store.view("train", "tap", row)
    assert len(calls) == len(set(calls)) == 3, "of ten samples, four a chunk"


def test_stores_of_earlier_versions_are_verified_as_whole_files(store):
    shard = PLAN.shards()[2]
    write_json(store.path / "committed" / "train.2.json", store.hashes(shard))
    assert store.missing() == []
    corrupt(files_of(store, shard)[0])
    with pytest.raises(Damaged):
        store.view("train", "images", shard.start)


READER = """
import sys
import numpy as np
from pipeline.data.stores import open_store
from stages import execute

def app():
    store = open_store(sys.argv[1])
    for row in range(10):
        store.view("train", "tap", row)
    np.save(sys.argv[2], store.read("train", slice(10))["tap"])

execute(app)
"""


def test_a_stage_that_meets_damaged_bytes_mends_them_and_goes_on(store, manifest, tmp_path):
    expected = store.read("train", slice(10))["tap"]
    corrupt(files_of(store, PLAN.shards()[1])[1])
    (tmp_path / "reader.py").write_text(READER)
    words = sys.executable, str(tmp_path / "reader.py"), str(manifest), str(tmp_path / "x.npy")
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert "warning: got damaged bytes in" in done.stderr and "running again" in done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), expected)


def test_opening_runs_the_recorded_command_for_what_is_missing(store, manifest):
    kept, gone = PLAN.shards()[0], PLAN.shards()[3]
    before = [path.stat().st_mtime_ns for path in files_of(store, kept)]
    store.drop(gone)
    assert_intact(open_store(manifest))
    assert [path.stat().st_mtime_ns for path in files_of(store, kept)] == before


def test_opening_a_manifest_without_a_store(store, manifest, monkeypatch, tmp_path):
    monkeypatch.setenv("PIPELINE_STORE", str(tmp_path / "fresh"))
    healed = open_store(manifest)
    assert healed.path.is_relative_to(tmp_path / "fresh")
    assert_intact(healed)


def test_opening_whole_stores_runs_nothing(manifest, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("a command was run"))
    assert_intact(open_store(manifest))


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "pass"])
def test_a_command_that_does_not_heal_is_reported(store, manifest, code):
    write_json(manifest, read_json(manifest) | {"command": ["python", "-c", code]})
    store.drop(PLAN.shards()[0])
    with pytest.raises(InputError, match=r"1 missing shards .*`dvc repro`"):
        open_store(manifest)


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no file at .*gone\.json"):
        open_store(tmp_path / "gone.json")


def test_the_plan_survives_the_manifest(manifest):
    plan = stores.plan_of(read_json(manifest))
    assert plan == PLAN and list(plan.splits) == list(PLAN.splits)
    assert plan.shards() == PLAN.shards()


# Writers that die, and writers that meet


def test_the_lock_removes_leftovers(store):
    leftovers = [store.path / "x.partial", store.path / "train" / "tap" / "c" / "1.123.partial"]
    for path in leftovers:
        path.write_bytes(b"half")
    with store.lock():
        assert not any(path.exists() for path in leftovers)
    assert_intact(store)


def stage_words(folder: Path, checkpoint: Path, latents: Path) -> list[str]:
    paths = [checkpoint, latents, folder / "manifest.json", folder / "images.zarr.zip"]
    options = {
        "label-size": 16,
        "max-tap-resolution": 16,
        "samples-per-shard": 1,
        "stored": "int8",
        "max-gib": 1,
        "compute": "float32",
        "device": "cpu",
        "workers": 1,
    }
    return [*map(str, paths), *(f"--{name}={value}" for name, value in options.items())]


def run_stage(words: list[str], monkeypatch) -> dict:
    """The stage as its command line runs it, in this process."""
    from stages import cache_features, flatten

    monkeypatch.setattr(sys, "argv", ["cache_features", *words])
    paths = [Path(word) for word in words if not word.startswith("--")]
    pairs = [word[2:].replace("-", "_").split("=") for word in words if word.startswith("--")]
    command = flatten(cache_features.cache_features)
    hints = get_type_hints(command)
    command(*paths, **{name: hints[name](value) for name, value in pairs})
    return read_json(paths[2])


def test_a_killed_stage_goes_on_where_it_stopped(tmp_path, checkpoints, monkeypatch):
    checkpoint, num = checkpoints["mobile_stylegan"], 40
    latents = toys.write_latents(tmp_path / "latents.zarr.zip", checkpoint, {"train": num})
    words = stage_words(tmp_path / "killed", checkpoint, latents)

    process = subprocess.Popen(
        [sys.executable, "-m", "stages.cache_features", *words],
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 240
    while len(list(tmp_path.glob("store/features/*/committed/*.json"))) < 3:
        assert process.poll() is None and time.monotonic() < deadline, "ended before the kill"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    committed = {
        p: p.stat().st_mtime_ns for p in tmp_path.glob("store/features/*/committed/*.json")
    }
    assert 3 <= len(committed) < num, "killed in the middle"
    assert not (tmp_path / "killed" / "manifest.json").exists()

    resumed = run_stage(words, monkeypatch)
    assert {path: path.stat().st_mtime_ns for path in committed} == committed, "kept, not remade"

    monkeypatch.setenv("PIPELINE_STORE", str(tmp_path / "other"))
    whole = run_stage(stage_words(tmp_path / "whole", checkpoint, latents), monkeypatch)
    assert len(whole["shards"]) == num
    assert resumed["fingerprint"] == whole["fingerprint"]
    assert resumed["shards"] == whole["shards"], "byte for byte"


def test_two_fills_at_once_share_the_work(monkeypatch, latents, checkpoints):
    made, inside = [], []

    def make(job):
        inside.append(job)
        assert len(inside) == 1, "two writers at once"
        time.sleep(0.01)  # time for the other to break in
        Store(PLAN).write(job.shard, values(job.shard))
        made.append(job.shard.name)
        inside.remove(job)

    monkeypatch.setattr(features, "make_shard", make)
    monkeypatch.setattr(features, "check_shard", lambda job: 0.0)
    monkeypatch.setattr(features, "_seconds_a_sample", lambda *args: 0.0)
    source = Source(str(checkpoints["dcgan"]), str(latents["dcgan"]))
    errors = []

    def run():
        try:
            features.fill(PLAN, source, [], max_gib=1.0, num_workers=1)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert sorted(made) == sorted(shard.name for shard in PLAN.shards()), "each shard once"
    assert_intact(Store(PLAN))


# Moving and removing


def test_exported_stores_are_imported(store, tmp_path):
    archive = tmp_path / "out" / "store.tar"
    assert store_care.export_store(store, archive) == archive.stat().st_size > PLAN.bytes
    root = tmp_path / "elsewhere"
    assert store_care.import_store(archive, root) == PLAN.fingerprint
    assert_intact(Store(PLAN, root))


def test_an_incomplete_store_is_not_exported(store, tmp_path):
    store.drop(PLAN.shards()[0])
    with pytest.raises(InputError, match="1 missing shards"):
        store_care.export_store(store, tmp_path / "store.tar")
    assert not (tmp_path / "store.tar").exists()


def tar_of(path, *members):
    with tarfile.open(path, "w") as tar:
        for name, link in members:
            info = tarfile.TarInfo(name)
            if link:
                info.type, info.linkname = tarfile.SYMTYPE, link
            info.size = 0 if link else 4
            tar.addfile(info, None if link else io.BytesIO(b"evil"))


@pytest.mark.parametrize(
    "members",
    [
        pytest.param([("features/abc/../../../../evil", None)], id="dots inside"),
        pytest.param([("features/../../evil", None)], id="dots as the fingerprint"),
        pytest.param([("../evil", None)], id="dots"),
        pytest.param([("/tmp/evil-of-a-test", None)], id="absolute"),
        pytest.param(
            [("features/abc/a", "../../.."), ("features/abc/a/evil", None)], id="through a link"
        ),
        pytest.param([("other/abc/evil", None)], id="no store"),
        pytest.param([("features/a/evil", None), ("features/b/evil", None)], id="two stores"),
        pytest.param([("features", None)], id="no fingerprint"),
        pytest.param([], id="empty"),
    ],
)
def test_archives_that_reach_outside_are_refused(tmp_path, members):
    archive, root = tmp_path / "x.tar", tmp_path / "a" / "b"
    tar_of(archive, *members)
    with pytest.raises(InputError):
        store_care.import_store(archive, root)
    assert not [p for p in tmp_path.rglob("*evil*") if not p.is_relative_to(root)]
    assert not Path("/tmp/evil-of-a-test").exists()


def test_a_broken_archive_imports_nothing(store, tmp_path):
    archive, root = tmp_path / "store.tar", tmp_path / "elsewhere"
    store_care.export_store(store, archive)
    content = archive.read_bytes()
    for share in (0.02, 0.5, 0.8):
        archive.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(InputError, match=r"store\.tar"):
            store_care.import_store(archive, root)
        assert store_care.list_stores(root) == [], "a part of a store would pass for a whole one"


def test_importing_over_a_store_keeps_it_whole(store, tmp_path):
    archive = tmp_path / "store.tar"
    store_care.export_store(store, archive)
    corrupt(files_of(store, PLAN.shards()[0])[0])
    store_care.import_store(archive, stores.store_root())
    assert_intact(Store(PLAN))


def test_garbage_is_what_nobody_names(store, store_root):
    other = Store(replace(PLAN, kind="pixels"))
    with other.lock():
        other.create()
    listed = store_care.list_stores(store_root)
    assert [s["kind"] for s in listed] == ["features", "pixels"]
    assert listed[0]["bytes"] >= PLAN.bytes
    keep = {PLAN.fingerprint}
    would = store_care.collect_garbage(store_root, keep, dry_run=True)
    assert [s["fingerprint"] for s in would] == [other.plan.fingerprint] and other.path.exists()
    assert store_care.collect_garbage(store_root, keep) == would
    assert not other.path.exists()
    assert_intact(store)


def test_the_store_lists_and_collects_pieces(store_root, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # no manifests here
    kind = Kind("edits", __name__)
    kind.write("new", {"x": np.zeros(1)})
    kind.write("old", {"x": np.zeros(1)})
    os.utime(kind.path("old"), (time.time() - 40 * 86_400,) * 2)
    runner = CliRunner()
    assert "edits                       2 pieces" in runner.invoke(store_tool.app, ["list"]).output
    found = runner.invoke(store_tool.app, ["gc", "--dry-run"])
    assert "would remove 1 of 2 pieces, those not used for 30 days" in found.output
    assert kind.path("old").exists()
    runner.invoke(store_tool.app, ["gc"])
    assert not kind.path("old").exists() and kind.path("new").exists()


def test_a_real_plan_has_the_taps_and_their_scales(checkpoints):
    taps = load_generator(checkpoints["mobile_stylegan"]).taps
    plan = plan_features({"generator": "x"}, taps, "int8", 16, {"train": 2}, 1)
    names = [array.name for array in plan.arrays]
    assert names == ["images"] + [n for tap in taps for n in (tap.name, f"{tap.name}.scale")]
    cells = sum(tap.channels * (tap.resolution**2 + 4) for tap in taps)
    assert plan.bytes_per_sample == 3 * 16 * 16 + cells
    with pytest.raises(InputError, match="feature dtype 'int4'; wanted one of float16, int8"):
        plan_features({}, taps, "int4", 16, {"train": 2}, 1)
