"""The paper's recipe: its schedule, and its fast pass against the pass as published."""

import numpy as np
import pytest
import torch

from pipeline.extractors import LSE
from pipeline.recipe import SCHEDULE, Sample, logits_as_published, logits_fast, passes
from pipeline.taps import Tap

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


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("align_corners", [True, False])
def test_the_fast_pass_gives_the_published_logits(scaled: bool, align_corners: bool):
    extractor, sample = LSE(["x", "y", "z"], TAPS), make_sample(scaled)
    weights = [w.detach() for w in extractor.weights]
    published = logits_as_published(weights, sample, align_corners)
    fast = logits_fast(weights, sample, align_corners)
    np.testing.assert_allclose(fast, published, atol=0.02 * float(published.abs().max()))
