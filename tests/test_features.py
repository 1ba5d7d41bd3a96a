import numpy as np
import pytest
import torch
import torch.nn.functional as F
import toys

from pipeline.data import features
from pipeline.data.arrays import Group
from pipeline.data.features import (
    BLOCK,
    Source,
    decode,
    encode,
    fill,
    plan_features,
    plan_pixels,
    stream,
)
from pipeline.data.images import to_uint8
from pipeline.generators.taps import select
from pipeline.runtime.errors import InputError

SPLITS = {"train": 5, "validation": 2}


@pytest.fixture(params=["dcgan", "mobile_stylegan"])
def source(request, checkpoints, latents):
    return Source(str(checkpoints[request.param]), str(latents[request.param]))


def make(source, stored="float16", facts=None, per_shard=2):
    """A filled store of the taps up to 16 px."""
    taps = select(source.generator().taps, 16)
    facts = facts or {"generator": source.checkpoint}
    plan = plan_features(facts, taps, stored, 16, SPLITS, per_shard)
    return fill(plan, source, taps, max_gib=1.0, num_workers=1), taps


def make_pixels(source, masks, stored="float16", align_corners=False):
    taps = source.generator().taps
    facts = {
        "generator": source.checkpoint,
        "pixels_per_sample": 50,
        "num_classes": len(toys.CLASSES),
        "align_corners": align_corners,
    }
    channels = sum(tap.channels for tap in taps)
    plan = plan_pixels(facts, channels, stored, SPLITS, 2)
    return fill(plan, source, taps, max_gib=1.0, num_workers=1, masks=str(masks)), taps


def synthesized(source, split, taps):
    """All samples of a split in one batch: taps and images."""
    generator, ws = source.generator(), torch.from_numpy(Group(source.latents).read(split, "ws"))
    with torch.inference_mode(), features.record(generator, taps) as found:
        images = generator.synthesis(ws)
    return found, images


def stored_and_read(x, stored):
    """x [N, ..., C] encoded and decoded, and its arrays."""
    arrays = {"x": np.empty(x.shape, stored)}
    if stored == "int8":
        arrays["x.scale"] = np.empty((len(x), x.shape[-1]), np.float32)
    encode(x, arrays["x"], arrays.get("x.scale"))
    return decode(arrays, "x"), arrays


LAYOUTS = {
    "pixels": torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)),
    "maps": torch.randn(3, 4, 4, 5, generator=torch.Generator().manual_seed(1)),
    "channels-first maps": torch.randn(
        3, 5, 4, 4, generator=torch.Generator().manual_seed(2)
    ).permute(0, 2, 3, 1),
    "more pixels than a block": torch.randn(
        3, 3, BLOCK // 5, 5, generator=torch.Generator().manual_seed(3)
    ),
    "a rest after the blocks": torch.randn(
        3, BLOCK // 5 + 7, 5, generator=torch.Generator().manual_seed(4)
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_int8_is_within_half_a_step_of_each_channel(layout):
    x = LAYOUTS[layout] * 10.0 ** torch.arange(-2, 3)  # channels differ much
    x[1, 2] = 0
    x[2, ..., 3] = 0
    read, arrays = stored_and_read(x, "int8")
    places = tuple(range(1, x.ndim - 1))
    scale = x.abs().amax(places, keepdim=True) / 127
    assert torch.all((read - x).abs() <= scale / 2 * 1.0001)
    np.testing.assert_allclose(
        arrays["x.scale"], scale.flatten(1).clamp_min(1e-12), rtol=1e-6, err_msg="one a channel"
    )
    most = np.abs(arrays["x"]).max(places)
    assert most[2, 3] == 0 and np.delete(most.ravel(), 2 * 5 + 3).min() == 127, (
        "nothing is clipped and no channel leaves its range unused"
    )


def test_bfloat16_features_are_scaled_in_float32():
    x = LAYOUTS["maps"].bfloat16()
    read, _ = stored_and_read(x, "int8")
    exact, _ = stored_and_read(x.float(), "int8")
    assert torch.equal(read, exact)


def test_float16_is_within_its_rounding():
    x = LAYOUTS["channels-first maps"]
    read, arrays = stored_and_read(x, "float16")
    assert arrays["x"].flags.c_contiguous
    torch.testing.assert_close(read, x, rtol=2**-11, atol=1e-7)


def test_streamed_taps_equal_one_batch_and_stop_early(source):
    taps = select(source.generator().taps, 8)
    whole, images = synthesized(source, "train", taps)
    parts = list(stream(source, "train", 1, 5, taps))
    assert all(drawn is None for _, drawn in parts)
    for tap in taps:
        x = torch.cat([found[tap.name] for found, _ in parts])
        torch.testing.assert_close(x, whole[tap.name][1:], rtol=1e-4, atol=1e-5)
    drawn = torch.cat([drawn for _, drawn in stream(source, "train", 0, 5, taps, images=True)])
    torch.testing.assert_close(drawn, images, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stored, tolerance", [("float16", 1e-3), ("int8", 5e-3)])
def test_cached_taps_equal_streamed_ones(source, stored, tolerance):
    store, taps = make(source, stored)
    for split in SPLITS:
        whole, images = synthesized(source, split, taps)
        arrays = store.read(split, slice(None))
        for tap in taps:
            x = whole[tap.name].permute(0, 2, 3, 1)
            assert arrays[tap.name].shape[1:] == (tap.resolution, tap.resolution, tap.channels)
            worst = (decode(arrays, tap.name) - x).abs().max() / x.abs().max()
            assert float(worst) < tolerance, tap.name
        drawn = arrays["images"].astype(int) - to_uint8(images, 16)
        assert np.abs(drawn).max() <= 1


def test_the_batch_size_cannot_change_what_is_stored(source, monkeypatch, tmp_path):
    found = []
    for size in (1, 3):
        monkeypatch.setenv("PIPELINE_STORE", str(tmp_path / f"batch{size}"))
        monkeypatch.setattr(Source, "batch_size", size)
        taps = source.generator().taps
        parts = [f for f, _ in stream(source, "train", 0, 5, taps)]
        assert [len(f[taps[0].name]) for f in parts] == ([1] * 5 if size == 1 else [3, 2])
        found.append({t.name: torch.cat([f[t.name] for f in parts]) for t in taps})
    for name, x in found[0].items():
        assert float((x - found[1][name]).abs().max() / x.abs().max()) < 1e-5


def modified(store):
    return {
        name: (store.path / name).stat().st_mtime_ns
        for shard in store.plan.shards()
        for name in store.hashes(shard)
    }


def test_unchanged_code_keeps_every_shard(source):
    store, _ = make(source, "int8")
    before = modified(store)
    store, _ = make(source, "int8")
    assert modified(store) == before
    gone = store.plan.shards()[1]
    names = set(store.hashes(gone))
    store.drop(gone)
    store, _ = make(source, "int8")
    after = modified(store)
    assert {name for name in after if after[name] != before[name]} == names, "only the dropped one"


def test_changed_images_are_noticed(source, monkeypatch):
    make(source)
    monkeypatch.setattr(features, "to_uint8", lambda images, size: 255 - to_uint8(images, size))
    with pytest.raises(InputError, match=r"raise VERSION in pipeline/data/features\.py"):
        make(source)
    monkeypatch.setattr(features, "VERSION", features.VERSION + 1)
    store, _ = make(source)  # another fingerprint, so a store of its own
    assert store.missing() == []


def test_changed_taps_are_noticed(source, monkeypatch):
    make(source, "int8")
    generator = source.generator()
    synthesis = type(generator).synthesis

    def other(self, ws, **options):
        return synthesis(self, ws * 1.1, **options)

    monkeypatch.setattr(type(generator), "synthesis", other)
    with pytest.raises(InputError, match="differs from a fresh one by"):
        make(source, "int8")


def test_rounding_is_no_change(checkpoints, latents, monkeypatch):
    source = Source(str(checkpoints["mobile_stylegan"]), str(latents["mobile_stylegan"]))
    make(source, "int8")
    synthesis = type(source.generator()).synthesis

    def rounded(self, ws, **options):
        return synthesis(self, ws * (1 + 1e-5), **options)

    monkeypatch.setattr(type(source.generator()), "synthesis", rounded)
    make(source, "int8")


def test_a_plan_above_max_gib_writes_nothing(source, store_root):
    taps = source.generator().taps
    plan = plan_features({}, taps, "float16", 16, SPLITS, 2)
    with pytest.raises(InputError, match="at most max_gib = 1e-06 GiB"):
        fill(plan, source, taps, max_gib=1e-6, num_workers=1)
    assert not store_root.exists()


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("stored, tolerance", [("float16", 1e-3), ("int8", 5e-3)])
def test_stored_pixels_are_hypercolumns(source, masks, align_corners, stored, tolerance):
    store, taps = make_pixels(source, masks, stored, align_corners)
    for split in SPLITS:
        whole, _ = synthesized(source, split, taps)
        targets = Group(masks).read(split, "masks")
        grids = [
            F.interpolate(
                whole[t.name], (32, 32), mode="bilinear", align_corners=align_corners
            ).flatten(2)
            for t in taps
        ]
        columns = torch.cat(grids, 1).transpose(1, 2)
        arrays = store.read(split, slice(None))
        decoded = decode(arrays, "columns")
        for i, places in enumerate(arrays["places"]):
            np.testing.assert_array_equal(arrays["classes"][i], targets[i].ravel()[places])
            error = (decoded[i] - columns[i, places]).abs().amax(0)
            assert torch.all(error / columns[i].abs().amax(0).clamp_min(1e-6) < tolerance)
        assert not np.array_equal(arrays["places"][0], arrays["places"][1])
        assert arrays["weights"].sum(1) == pytest.approx(1, abs=0.3)


def test_pixels_do_not_depend_on_shards_or_batches(checkpoints, latents, masks, monkeypatch):
    source = Source(str(checkpoints["dcgan"]), str(latents["dcgan"]))
    monkeypatch.setattr(Source, "batch_size", 1)
    one, _ = make_pixels(source, masks)
    first = one.read("train", slice(None))
    for shard in one.plan.shards():
        one.drop(shard)
    monkeypatch.setattr(Source, "batch_size", 3)
    other, _ = make_pixels(source, masks)
    second = other.read("train", slice(None))
    np.testing.assert_array_equal(first["places"], second["places"])
    np.testing.assert_allclose(first["columns"], second["columns"], rtol=2e-3, atol=1e-5)


def test_workers_give_the_same_store(checkpoints, latents, monkeypatch, tmp_path):
    source = Source(str(checkpoints["dcgan"]), str(latents["dcgan"]))
    alone, taps = make(source)
    monkeypatch.setenv("PIPELINE_STORE", str(tmp_path / "other"))
    shared = fill(alone.plan, source, taps, max_gib=1.0, num_workers=2)
    assert shared.path != alone.path
    for shard in alone.plan.shards():
        assert shared.hashes(shard) == alone.hashes(shard)
