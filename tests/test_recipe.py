"""The paper's recipe: its schedule, and its fast pass against the pass as published."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.data.features import Source, fill, plan_features, stream
from pipeline.data.plans import Array
from pipeline.data.stores import Store
from pipeline.extractors.networks import LSE
from pipeline.extractors.recipe import (
    SCHEDULE,
    CachedSamples,
    Sample,
    logits_as_published,
    logits_fast,
    passes,
)
from pipeline.generators.taps import Tap
from pipeline.runtime.errors import InputError

TAPS = (Tap("a", "a", 6, 4), Tap("b", "b", 5, 8), Tap("c", "c", 3, 8))


def make_sample(scaled: bool) -> Sample:
    rng = torch.Generator().manual_seed(0)
    taps = [torch.randn(t.channels, t.resolution, t.resolution, generator=rng) for t in TAPS]
    mask = torch.zeros(16, 16, dtype=torch.long)
    if not scaled:
        return Sample([x.half() for x in taps], [None] * 3, mask)
    scales = [x.abs().amax((1, 2)) / 127 for x in taps]
    codes = [
        (x / s[:, None, None]).round().to(torch.int8) for x, s in zip(taps, scales, strict=True)
    ]
    return Sample(codes, scales, mask)


def test_the_full_schedule_is_6656_steps_over_51200_samples():
    done = list(passes(300))
    assert len(done) == 51_200
    assert sum(1 / accumulate for _, accumulate in done) == pytest.approx(6_656)
    assert [n for n, _ in SCHEDULE] == [2, 16, 32]


def test_every_sample_is_seen_once_before_any_twice():
    rows = [row for row, _ in passes(64, epochs=50)][:128]
    assert sorted(rows[:64]) == list(range(64)) == sorted(rows[64:])


def channels_last(sample: Sample) -> Sample:
    """The same sample with maps that lie in memory as [H, W, C]."""
    taps = [x.permute(1, 2, 0).contiguous().permute(2, 0, 1) for x in sample.taps]
    return Sample(taps, sample.scales, sample.mask)


@pytest.mark.parametrize("layout", [channels_last, lambda sample: sample], ids=["last", "first"])
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("align_corners", [True, False])
def test_the_fast_pass_gives_the_published_logits(layout, scaled: bool, align_corners: bool):
    extractor = LSE(["x", "y", "z"], TAPS, align_corners=align_corners)
    sample = layout(make_sample(scaled))
    weights = [w.detach() for w in extractor.weights]
    published = logits_as_published(weights, sample, align_corners)
    fast = logits_fast(weights, sample, align_corners)
    np.testing.assert_allclose(fast, published, atol=0.02 * float(published.abs().max()))
    scales = sample.scales if scaled else [torch.ones(t.channels) for t in TAPS]
    features = {
        t.name: (x.float() * s[:, None, None])[None]
        for t, x, s in zip(TAPS, sample.taps, scales, strict=True)
    }
    expected = LSE.logits(extractor, features, 16).detach()
    torch.testing.assert_close(published[0], expected[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stored", ["float16", "int8"])
def test_cached_samples_are_views_of_the_maps(stored, checkpoints, latents, masks):
    source = Source(str(checkpoints["mobile_stylegan"]), str(latents["mobile_stylegan"]))
    taps = source.generator().taps
    plan = plan_features({}, taps, stored, 16, {"train": 5}, 2)
    store = fill(plan, source, taps, max_gib=1.0, num_workers=1)
    samples = CachedSamples(store, str(masks), "train", taps, "cpu")
    streamed = [
        {name: x[i] for name, x in found.items()}
        for found, _ in stream(source, "train", 0, 5, taps)
        for i in range(len(found[taps[0].name]))
    ]
    assert len(samples) == len(streamed) == 5
    for row, maps in enumerate(streamed):
        sample = samples[row]
        for tap, x, scale in zip(taps, sample.taps, sample.scales, strict=True):
            assert x.shape == maps[tap.name].shape and x.stride(0) == 1, "a view, channels last"
            found = x.float() if scale is None else x.float() * scale[:, None, None]
            peak = float(maps[tap.name].abs().max())
            torch.testing.assert_close(found, maps[tap.name], rtol=0, atol=0.005 * peak)


def test_a_store_with_channels_first_is_refused(checkpoints, latents, masks):
    source = Source(str(checkpoints["mobile_stylegan"]), str(latents["mobile_stylegan"]))
    taps = source.generator().taps
    plan = plan_features({}, taps, "int8", 16, {"train": 5}, 2)
    turned = tuple(
        Array(a.name, a.shape[::-1], a.dtype, a.dims[::-1]) if a.dims[0] == "y" else a
        for a in plan.arrays
    )
    with pytest.raises(InputError, match=r"maps of 4px as channel, x, y; .*run `dvc repro`"):
        CachedSamples(Store(replace(plan, arrays=turned)), str(masks), "train", taps, "cpu")
