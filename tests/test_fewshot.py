import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import toys
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.analysis.fewshot import selection
from pipeline.analysis.fewshot.fits import Task, fit, fit_parts
from pipeline.analysis.fewshot.options import Draws, Rule, Sweep
from pipeline.analysis.fewshot.pool import annotate
from pipeline.analysis.fewshot.scores import IOU, fit_costs, report, statistics
from pipeline.analysis.fewshot.strategies import (
    QUERIES,
    SELECTIONS,
    committee,
    disagreement,
    entropy,
    select_and_solve,
)
from pipeline.analysis.fewshot.sweeps import fit_fewshot, sweep_fewshot
from pipeline.data.arrays import write_group
from pipeline.data.features import Source, stream
from pipeline.data.inputs import Study, open_study
from pipeline.extractors.networks import LSE, load_extractor, save_extractor
from pipeline.extractors.prediction import _largest, confusions, stack, stacked_masks
from pipeline.extractors.problems import problem
from pipeline.generators.taps import Tap
from pipeline.metrics.iou import PixelCounts, intersection_union
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import write_json
from pipeline.runtime.options import comments
from pipeline.runtime.weights import read_safetensors
from stages import flatten

UNKNOWN = "selection 'clever'; wanted one of random, diverse, uncertain, committee"
SIZES = {"train": 8, "validation": 0, "test": 12, "pool": 12}
RULE = Rule(power=0.5, l2=1e-5, iterations=60, pixels_per_sample=256)
NUM = len(toys.CLASSES)
GOLDEN = json.loads((Path(__file__).parent / "data" / "committee.json").read_text())


@pytest.fixture(scope="module")
def study(tmp_path_factory, checkpoints):
    """A toy generator whose masks a planted LSE drew."""
    folder, checkpoint = tmp_path_factory.mktemp("fewshot"), checkpoints["mobile_stylegan"]
    latents = toys.write_latents(folder / "latents.zarr.zip", checkpoint, SIZES)
    source = Source(str(checkpoint), str(latents))
    taps = source.generator().taps
    batches = [f for f, _ in stream(source, "train", 0, SIZES["train"], taps)]
    mean = torch.cat([torch.cat([f[t.name] for f in batches]).mean((0, 2, 3)) for t in taps])
    matrix = torch.randn(len(mean), NUM, generator=torch.Generator().manual_seed(7))
    planted = LSE(toys.CLASSES, taps)
    # Blind to the mean feature, else one class would cover nearly everything.
    planted.set_matrix(matrix - torch.outer(mean, mean @ matrix) / mean.square().sum())
    masks = {
        f"{split}/masks": np.concatenate(
            [planted.predict(f, 32) for f, _ in stream(source, split, 0, num, taps)]
            or [np.zeros((0, 32, 32), np.uint8)]
        )
        for split, num in SIZES.items()
    }
    write_group(folder / "masks.zarr.zip", masks, {"classes": list(toys.CLASSES)})
    return Study(source, str(folder / "masks.zarr.zip"))


@pytest.fixture
def float32(monkeypatch):
    """The same numbers on every processor."""
    monkeypatch.setattr("pipeline.extractors.problems.STORED", torch.float32)
    monkeypatch.setattr("pipeline.extractors.prediction.fast_bfloat16", lambda device: False)


# Draws


def test_draws_are_disjoint_and_more_shots_contain_fewer():
    draws = {shots: selection.disjoint_draws(80, shots, 5, 3) for shots in (1, 4, 8, 16)}
    for shots, rows in draws.items():
        assert rows.shape == (5, shots)
        assert len(np.unique(rows)) == 5 * shots, "no sample in two repeats"
        np.testing.assert_array_equal(rows, draws[16][:, :shots])
    assert not np.array_equal(draws[1], selection.disjoint_draws(80, 1, 5, 4)), "the seed matters"


@pytest.mark.parametrize(
    "shots, repeats, message",
    [
        (0, 5, "got shots 0; wanted at least 1"),
        (4, 0, "got repeats 0; wanted at least 1"),
        (17, 5, "5 disjoint draws of 17 samples from a pool of 80; wanted at most 16 shots"),
    ],
)
def test_bad_shots_are_one_sentence(shots, repeats, message):
    with pytest.raises(InputError, match=message):
        selection.disjoint_draws(80, shots, repeats, 0)


def test_candidates_are_halves():
    halves = selection.candidates(20, 6, 0)
    assert halves.shape == (6, 10)
    assert all(len(np.unique(half)) == 10 for half in halves)
    assert len({tuple(sorted(half)) for half in halves}) == 6


def test_k_center_covers_planted_clusters():
    rng = np.random.default_rng(0)
    centers = np.array([[0, 0], [100, 0], [0, 100], [-100, -100.0]])
    kind = rng.integers(0, 4, 60)
    points = centers[kind] + rng.standard_normal((60, 2))
    assert set(kind[selection.k_center(points, 4)]) == {0, 1, 2, 3}, "one of each cluster"
    assert len(set(selection.k_center(points, 60).tolist())) == 60, "no row twice"
    central = ((points - points.mean(0)) ** 2).sum(1).argmin()
    assert selection.k_center(points, 1).tolist() == [central]


def test_the_most_uncertain_of_the_rest():
    entropies = np.array([0.1, 0.9, 0.5, 0.7])
    assert selection.most_uncertain(entropies, np.array([1]), 2).tolist() == [3, 2]


# Committees


@pytest.mark.parametrize(
    "count, sizes, shows",
    [
        (16, [10, 11, 11], "about a third is left out"),
        (3, [2, 2, 2], "each leaves out one"),
        (2, [1, 1, 2], "of two, a member keeps both"),
    ],
)
def test_each_member_leaves_a_different_share_out(count, sizes, shows):
    kept = selection.jackknife(count, 3, 5)
    assert sorted(map(len, kept)) == sizes, shows
    left_out = [np.setdiff1d(np.arange(count), k) for k in kept]
    assert sorted(np.concatenate(left_out).tolist()) == list(range(count)), "each thing once"
    again = selection.jackknife(count, 3, 5)
    assert all(np.array_equal(a, b) for a, b in zip(kept, again, strict=True))
    others = [selection.jackknife(count, 3, (5, repeat)) for repeat in range(8)]
    assert any(other[0].tolist() != kept[0].tolist() for other in others), "the seed matters"


def golden_probabilities() -> np.ndarray:
    model, pixel, label = np.ogrid[:3, :5, :4]
    odds = np.exp(2 * np.sin(1 + 1.7 * model + 0.9 * pixel + 2.3 * label))
    return odds / odds.sum(-1, keepdims=True)


def test_divergences_are_the_published_ones():
    wanted, probabilities = GOLDEN["js"], golden_probabilities()
    assert probabilities.mean(0).argmax(-1).tolist() == wanted["meanprob_argmax"]
    votes = [np.bincount(v, minlength=4).argmax() for v in probabilities.argmax(-1).T]
    assert votes == wanted["vote"]
    found = selection.jensen_shannon(probabilities)
    np.testing.assert_allclose(found, wanted["js"], rtol=0, atol=1e-9)
    assert selection.top_mean(found, 0.2) == pytest.approx(wanted["top20pct_mean"], abs=1e-9)
    each_sure_of_another = np.eye(4)[:3, None]
    bound = selection.jensen_shannon(each_sure_of_another)
    np.testing.assert_allclose(bound, wanted["bound_lnE"], rtol=0, atol=1e-9)


@given(arrays(float, st.tuples(*[st.integers(1, 5)] * 3), elements=st.floats(0, 1)), st.data())
def test_a_divergence_is_between_none_and_all_and_knows_no_order(odds, data):
    odds[..., 0] += odds.sum(-1) == 0
    probabilities = odds / odds.sum(-1, keepdims=True)
    num = len(probabilities)
    found = selection.jensen_shannon(probabilities)
    assert found.shape == probabilities.shape[1:2]
    assert (found >= 0).all() and (found <= np.log(num) + 1e-12).all()
    order = data.draw(st.permutations(range(num)))
    again = selection.jensen_shannon(probabilities[order])
    np.testing.assert_allclose(again, found, rtol=0, atol=1e-12)
    equal = selection.jensen_shannon(np.repeat(probabilities[:1], num, 0))
    np.testing.assert_allclose(equal, 0, atol=1e-12)


@pytest.mark.parametrize(
    "values, share, mean, shows",
    [
        ([3, 1, 4, 1, 5, 9, 2, 6, 5, 3], 0.1, 9, "the largest of ten"),
        ([3, 1, 4, 1, 5, 9, 2, 6, 5, 3], 0.3, 20 / 3, "three of ten, wherever they are"),
        ([1, 2], 0.1, 2, "at least one"),
        ([1, 2, 6], 1.0, 3, "all"),
        (range(128), 0.1, 121, "13 of 128: the nearest number"),
    ],
)
def test_the_mean_of_the_largest(values, share, mean, shows):
    found = selection.top_mean(np.array(values, float), share)
    assert found == pytest.approx(mean), shows


def test_disagreement_of_members_that_agree_and_of_sure_opponents():
    columns = torch.eye(20)[:, :2]  # two pixels where members may differ, 18 where nothing is
    sure = torch.zeros(3, 2, 4)
    for member in range(3):
        sure[member, :, member] = 100.0
    assert disagreement(sure, columns) == pytest.approx(np.log(3)), "mean of the top 2 of 20"
    assert disagreement(sure[:1].expand(3, -1, -1), columns) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("rows", [(5,), (5, 2), (5, 2, 7, 1)])
def test_members_are_fits_without_a_third(study, float32, rows):
    pool = annotate(study, {row: [0] for row in rows}, 99)
    parts = [pool.parts[row, 0] for row in rows]
    members = committee(parts, RULE, NUM, (0, 3))
    assert members.shape == (3, sum(tap.channels for tap in study.taps), NUM)
    if len(rows) == 1:  # thirds of its pixels
        kept = selection.jackknife(99, 3, (0, 3))
        seen = [[parts[0].at(pixels)] for pixels in kept]
        assert [len(part.y) for (part,) in seen] == [66, 66, 66]
    else:
        kept = selection.jackknife(len(rows), 3, (0, 3))
        seen = [[parts[i] for i in samples] for samples in kept]
    for member, own in zip(members, seen, strict=True):
        torch.testing.assert_close(member, fit_parts(own, RULE, NUM))
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(members, 2))
    assert torch.equal(members, committee(parts, RULE, NUM, (0, 3)))


# Strokes


def blocks(size: int = 40) -> np.ndarray:
    """Areas 1,200, 384 and 16; class 2 is absent."""
    mask = np.zeros((size, size), np.uint8)
    mask[: 10 * size // 40] = 1
    mask[2:6, 2:6] = 3
    return mask


@given(st.lists(st.integers(0, 500), min_size=1, max_size=6), st.integers(0, 800))
def test_shares_fill_the_count_within_the_areas(areas, count):
    area = np.array(areas)
    found = selection.shares(area, count)
    assert found.sum() == min(count, area.sum())
    assert (found <= area).all() and (found >= 0).all()
    if count >= (area > 0).sum():
        assert (found[area > 0] >= 1).all(), "no class that is present is forgotten"


def test_shares_are_in_proportion_to_the_square_root():
    assert selection.shares(np.array([10_000, 400, 0, 100]), 130).tolist() == [100, 20, 0, 10]


@pytest.mark.parametrize("count", [1, 3, 50, 300, 1600, 9999])
def test_strokes_are_as_many_different_pixels_as_asked(count):
    mask = blocks()
    places = selection.strokes(mask, count, 0)
    assert len(places) == len(np.unique(places)) == min(count, mask.size)
    drawn = np.bincount(mask.ravel()[places], minlength=4)
    np.testing.assert_array_equal(drawn, selection.shares(np.bincount(mask.ravel()), count))
    np.testing.assert_array_equal(places, selection.strokes(mask, count, 0))
    if 3 < count < mask.size:
        assert not np.array_equal(places, selection.strokes(mask, count, 1))


def test_strokes_are_connected_and_thin():
    """Segments: nearly every pixel touches another, few touch more than two."""
    mask = np.zeros((64, 64), np.uint8)
    places = selection.strokes(mask, 60, 0)
    y, x = np.divmod(places, 64)
    near = np.maximum(abs(y[:, None] - y), abs(x[:, None] - x)) == 1
    assert (near.sum(1) >= 1).mean() > 0.9, "single pixels would not touch"
    assert (near.sum(1) <= 2).mean() > 0.8, "a blob would have eight neighbors"


# Fitting


def test_scaling_keeps_the_mean_power_at_one():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(300, 6, generator=rng) * torch.tensor([0.01, 0.1, 1, 2, 10, 100])
    y, weights = torch.zeros(300, dtype=torch.int64), torch.ones(300)
    for power in (0.0, 0.5, 1.0):
        data = problem(x.clone(), y, weights, 2, False, power)
        each = data.x.square().mean(0)
        assert float(each.mean()) == pytest.approx(1, rel=1e-4)
        ratio = float((each[5] / each[0]).sqrt())
        expected = float((x[:, 5].square().mean() / x[:, 0].square().mean()).sqrt())
        assert ratio == pytest.approx(expected ** (1 - power), rel=1e-3)
        torch.testing.assert_close(data.x * data.scale, x, rtol=1e-4, atol=1e-6)


def test_a_planted_extractor_is_found_from_six_samples(study, float32):
    fitted, rows = fit_fewshot(study, Draws(6, 2, 0), RULE, 1)
    assert all(row["miou_dataset"] > 70 for row in rows), rows
    assert [row["labeled_pixels"] for row in rows] == [6 * 32 * 32] * 2
    used = [set(one.task.rows) for one in fitted]
    assert len(used[0]) == len(used[1]) == 6 and not used[0] & used[1]
    one = fit_fewshot(study, Draws(1, 2, 0), RULE, 1)[1]
    assert np.mean([r["miou_dataset"] for r in one]) < np.mean([r["miou_dataset"] for r in rows])


def test_an_annotation_holds_what_its_name_says(study, float32):
    pool = annotate(study, {5: [0, 20], 2: [20]}, 100)
    assert set(pool.parts) == {(5, 0), (5, 20), (2, 20)}
    assert [len(pool.parts[key].y) for key in [(5, 0), (5, 20), (2, 20)]] == [100, 20, 20]
    alone = annotate(study, {5: [20]}, 7)
    torch.testing.assert_close(alone.parts[5, 20].x, pool.parts[5, 20].x)
    assert not torch.equal(pool.parts[5, 20].x, pool.parts[2, 20].x), "another sample"
    for part in pool.parts.values():
        assert float(part.weights.sum()) == pytest.approx(1)
    assert pool.parts[5, 20].weights.unique().numel() == 1, "stroke pixels count the same"


def test_a_fit_leaves_the_pool_as_it_was(study, float32):
    pool = annotate(study, {5: [0]}, 50)
    before = pool.parts[5, 0].x.clone()
    once, again = (fit(pool, Task((5,), 0), RULE, NUM) for _ in range(2))
    assert torch.equal(pool.parts[5, 0].x, before), "scaling is done on a copy"
    assert torch.equal(once, again)


def test_queries_ask_for_high_entropy_or_disagreement(study, float32):
    pool = annotate(study, {row: [0] for row in range(12)}, 128, unlabeled=True)
    found = select_and_solve(study, pool, SELECTIONS, [1, 3], 2, 0, RULE)
    tasks = {(f.task.selection, f.task.repeat, len(f.task.rows)): f for f in found}
    halves = selection.candidates(12, 2, 0)
    for repeat, half in enumerate(halves):
        for name in SELECTIONS:
            assert set(tasks[name, repeat, 3].task.rows) <= set(half.tolist()), "its candidates"
        members = committee([pool.parts[half[0], 0]], RULE, NUM, (0, repeat))
        extractor = tasks["uncertain", repeat, 1].extractor
        asked = {
            "uncertain": lambda columns, extractor=extractor: entropy(extractor, columns),
            "committee": lambda columns, members=members: disagreement(members, columns),
        }
        assert set(asked) == set(QUERIES)
        for name, score in asked.items():
            first, then = (tasks[name, repeat, n] for n in (1, 3))
            assert first.task.rows == then.task.rows[:1] == (half[0],)
            scores = {r: score(pool.unlabeled[r]) for r in half.tolist()}
            rest = sorted(set(half.tolist()) - set(first.task.rows), key=lambda r: -scores[r])
            assert list(then.task.rows[1:]) == rest[:2]
        assert tasks["random", repeat, 3].task.rows == tuple(half[:3])
    with pytest.raises(InputError, match=UNKNOWN):
        select_and_solve(study, pool, ["clever"], [1], 2, 0, RULE)
    with pytest.raises(InputError, match="7 shots from a random half of the pool, 6 samples"):
        select_and_solve(study, pool, ["random"], [7], 2, 0, RULE)


@pytest.mark.parametrize("strategy", SELECTIONS)
def test_no_mask_of_a_sample_that_was_not_picked_is_read(study, float32, strategy):
    pool = annotate(study, {row: [0] for row in range(12)}, 64, unlabeled=True)
    found = select_and_solve(study, pool, [strategy], [1, 2, 4], 1, 0, RULE)
    picked = {row for one in found for row in one.task.rows}
    assert len(picked) == 4
    for row in set(range(12)) - picked:
        del pool.parts[row, 0]
    again = select_and_solve(study, pool, [strategy], [1, 2, 4], 1, 0, RULE)
    assert [one.task for one in again] == [one.task for one in found]


def test_entropy_of_a_blind_and_of_a_sure_extractor():
    extractor = LSE(("a", "b", "c", "d"), [Tap("t", "t", 2, 4)])
    extractor.requires_grad_(False)
    columns = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    extractor.set_matrix(torch.zeros(2, 4))
    assert entropy(extractor, columns) == pytest.approx(np.log(4))
    extractor.set_matrix(torch.tensor([[100.0, 0, 0, 0], [0, 0, 0, 0]]))
    assert entropy(extractor, columns) == pytest.approx(0, abs=1e-6)


# Scoring in lock-step


def random_extractors(taps, num, seed=0, align_corners=False):
    rng, found = torch.Generator().manual_seed(seed), []
    for _ in range(num):
        extractor = LSE(toys.CLASSES, taps, align_corners=align_corners)
        extractor.set_matrix(torch.randn(sum(t.channels for t in taps), NUM, generator=rng))
        found.append(extractor.requires_grad_(False))
    return found


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    "size", [4, 16, 32, 40, 64], ids=["coarsest", "finer taps", "label size", "odd", "coarser taps"]
)
def test_a_stack_predicts_what_each_extractor_predicts(study, float32, size, align_corners):
    extractors = random_extractors(study.taps, 6, align_corners=align_corners)
    features, _ = next(stream(study.source, "test", 0, 2, study.taps))
    masks = list(stacked_masks(stack(extractors), NUM, features, size))
    assert len(masks) == 6
    for mask, extractor in zip(masks, extractors, strict=True):
        assert mask.shape == (len(mask), size, size) and mask.dtype == np.uint8
        assert (mask == extractor.predict(features, size)).mean() > 0.999, "rounding at edges"
    assert any((a != b).any() for a, b in itertools.pairwise(masks))


@given(st.integers(0, 1000), st.integers(2, 20))
def test_the_largest_is_the_first_of_the_largest_logits(seed, num_classes):
    """Logits of few values, so that many are equal, beside the first class's, which are 0."""
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randint(-3, 3, (9, num_classes, 5), generator=rng) * 0.7
    logits[:, 0] = 0
    found = _largest(logits[:, 1:].contiguous())
    assert found.dtype == torch.uint8
    assert found.tolist() == logits.numpy().argmax(1).tolist()


@pytest.mark.parametrize("last", [[-1], []], ids=["another resolution", "nothing"])
def test_a_stack_leaves_out_taps_that_no_neighbor_reads(study, float32, last):
    """Of five extractors, the four scored at once read the first tap, the fifth reads `last`."""
    extractors = random_extractors(study.taps, 5)
    for extractor, read in zip(extractors, [[0]] * 4 + [last], strict=True):
        kept = [range(len(study.taps))[i] for i in read]
        for i, weight in enumerate(extractor.weights):
            weight.data *= i in kept
    features, _ = next(stream(study.source, "test", 0, 2, study.taps))
    masks = list(stacked_masks(stack(extractors), NUM, features, 32))
    for mask, extractor in zip(masks, extractors, strict=True):
        assert (mask == extractor.predict(features, 32)).mean() > 0.999, "rounding at edges"


def test_confusions_are_those_of_masks(study, float32):
    extractors = random_extractors(study.taps, 2)
    found = confusions(extractors, study.source, study.masks, "test", 1)
    from pipeline.data.arrays import Group

    target = Group(study.masks).read("test", "masks")
    for extractor, confusion in zip(extractors, found, strict=True):
        parts = stream(study.source, "test", 0, SIZES["test"], study.taps)
        counts = PixelCounts(NUM)
        counts.add(np.concatenate([extractor.predict(f, 32) for f, _ in parts]), target)
        assert abs(confusion - counts.per_image).sum() <= 4, "a pixel at an edge may round over"
        assert confusion.shape == (SIZES["test"], NUM, NUM)
        intersection, union = intersection_union(confusion)
        assert (intersection <= union).all() and union.sum() > 0


def test_extractors_that_do_not_fit_are_refused(study):
    own, foreign = random_extractors(study.taps, 1), random_extractors([Tap("t9", "t", 4, 8)], 1)
    with pytest.raises(InputError, match="extractors of 5 taps and 4 classes beside one of 1 taps"):
        stack(own + foreign)
    with pytest.raises(InputError, match="an extractor of tap t9 with 4 channels; wanted taps of"):
        confusions(foreign, study.source, study.masks, "test", 1)
    with pytest.raises(InputError, match="an extractor with a bias; wanted none"):
        stack([LSE(toys.CLASSES, study.taps, bias=True)])


# Studies, sweeps and reports


def facts(study):
    from pipeline.data.arrays import Group

    return {
        "taps": [vars(tap) for tap in study.taps],
        "masks": Group(study.masks).digest("masks"),
        "align_corners": True,
    }


def test_a_pixel_store_of_another_study_is_refused(study):
    own = facts(study)
    assert open_study(study.source, study.masks, own).align_corners
    for other in (own | {"taps": own["taps"][:2]}, own | {"masks": "0123456789abcdef"}):
        with pytest.raises(InputError, match=r"a pixel store of .* wanted 5 taps and masks"):
            open_study(study.source, study.masks, other)


def test_masks_of_another_study_are_refused(study, masks):
    with pytest.raises(InputError, match="name the masks and the latents of one study"):
        sweep_fewshot(Study(study.source, str(masks)), Sweep((1,), 1, (), (), (), 0), RULE, 1)


@pytest.fixture(scope="module")
def rows(study):
    sweep = Sweep((1, 3), 2, tuple(SELECTIONS), (24, 60), (1, 3), 0)
    return sweep_fewshot(study, sweep, RULE, 1)


def test_a_sweep_has_a_row_for_every_extractor(rows):
    kinds = [(r["candidates"], r["annotation"], r["selection"], r["shots"]) for r in rows]
    assert kinds.count(("pool", "full", "random", 1)) == 2
    assert kinds.count(("pool", "strokes", "random", 3)) == 4, "two budgets, two repeats"
    for name in SELECTIONS:
        assert kinds.count(("half", "full", name, 3)) == 2
    assert len(rows) == 4 + 8 + 16
    strokes = {r["labeled_pixels"] for r in rows if r["annotation"] == "strokes"}
    assert strokes == {24, 60}
    assert all(0 < r["miou_dataset"] <= 100 for r in rows)


def test_a_fit_alone_scores_as_in_the_sweep(study, rows):
    alone = fit_fewshot(study, Draws(3, 2, 0), RULE, 1)[1]
    within = [
        r for r in rows if (r["candidates"], r["annotation"], r["shots"]) == ("pool", "full", 3)
    ]
    for a, b in zip(alone, within, strict=True):
        assert a["miou_dataset"] == pytest.approx(b["miou_dataset"], abs=0.5)
        iou = [value for name, value in a.items() if name.startswith(IOU)]
        assert np.nanmean(iou) == pytest.approx(a["miou_per_image"], abs=0.01)


@pytest.mark.parametrize("strategy", ["diverse", *QUERIES])
def test_a_strategy_picks_for_a_fit_alone_as_in_the_sweep(study, rows, strategy):
    fitted, alone = fit_fewshot(study, Draws(3, 2, 0, strategy), RULE, 1)
    halves = selection.candidates(study.pool, 2, 0)
    for one, half in zip(fitted, halves, strict=True):
        assert len(one.task.rows) == 3 and set(one.task.rows) <= set(half.tolist())
    if strategy == "diverse":  # nothing but the half decides
        within = [r for r in rows if (r["selection"], r["shots"]) == (strategy, 3)]
        for a, b in zip(alone, within, strict=True):
            assert a["miou_dataset"] == pytest.approx(b["miou_dataset"], abs=0.5)


def test_unknown_names_and_budgets_are_one_sentence(study):
    with pytest.raises(InputError, match=UNKNOWN):
        sweep_fewshot(study, Sweep((1,), 2, ("clever",), (), (), 0), RULE, 1)
    with pytest.raises(InputError, match=UNKNOWN):
        fit_fewshot(study, Draws(1, 2, 0, "clever"), RULE, 1)
    with pytest.raises(InputError, match="a stroke budget of 2 pixels over 3 images"):
        sweep_fewshot(study, Sweep((1,), 2, (), (2,), (1, 3), 0), RULE, 1)
    with pytest.raises(InputError, match="2 disjoint draws of 7 samples from a pool of 12"):
        sweep_fewshot(study, Sweep((7,), 2, (), (), (), 0), RULE, 1)


def test_statistics_by_hand():
    found = statistics([1.0, 2.0, 6.0])
    assert found == {"mean": 3.0, "standard_deviation": 2.646, "maximum_deviation": 3.0}
    assert statistics([4.0])["standard_deviation"] == 0


def scored(strategy, repeat, value, candidates="half"):
    task = Task((1, 2), repeat, strategy, candidates)
    scores = {"miou_per_image": value, "miou_dataset": value + 1}
    return task.facts | scores | {"labeled_pixels": 2048, "cpu_seconds": 0.5}


FULL = {"against_teacher": {"miou_per_image": {"mean": 80.0}, "miou_dataset": {"mean": 90.0}}}


def test_the_report_pairs_selections_by_repeat():
    rows = [scored("random", r, v) for r, v in enumerate([10.0, 50.0, 30.0])]
    rows += [scored("diverse", r, v) for r, v in enumerate([12.0, 53.0, 34.0])]
    rows += [scored("random", 0, 40.0, "pool")]
    found = report(rows, FULL)
    assert found["full"]["2"]["miou_per_image"]["of_full_lse"] == 50.0
    diverse = found["selection"]["diverse"]["2"]
    # Differences 2, 3, 4: standard error 1 / sqrt 3, t(2 degrees) 4.303.
    assert diverse["gain"]["miou_per_image"] == {"mean": 3.0, "plus_minus": 2.484}
    assert diverse["repeats"] == 3
    assert "gain" not in found["selection"]["random"]["2"]
    assert "seconds" not in json.dumps(found), "times are no scores"
    rows.append(scored("random", 1, 40.0, "pool"))
    assert fit_costs(rows) == {"fits of 2-shot LSEs": {"cpu_seconds": 1.0}}


# The stages


def arguments(study, folder):
    write_json(folder / "pixels.json", {"facts": facts(study) | {"align_corners": False}})
    write_json(folder / "full.json", FULL)
    source = study.source
    paths = [source.checkpoint, source.latents, study.masks]
    paths += [folder / "pixels.json", folder / "full.json", folder / "out", folder / "metrics.json"]
    paths.append(folder / "costs.json")
    rule = {"power": 0.5, "l2": 1e-4, "iterations": 5, "pixels_per_sample": 32, "repeats": 2}
    return paths, rule | {"seed": 0, "compute": "float32", "device": "cpu", "workers": 1}


def test_help_names_every_strategy():
    for text in (comments(Draws)["selection"], comments(Sweep)["selections"]):
        assert all(name in text for name in SELECTIONS)


@pytest.mark.parametrize("strategy", QUERIES)
def test_fit_fewshot_asks_in_rounds(study, float32, tmp_path, strategy):
    from stages.fit_fewshot import fit_fewshot

    paths, options = arguments(study, tmp_path)
    flatten(fit_fewshot)(*paths, shots=3, selection=strategy, **options)
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert (found["shots"], found["selection"], found["repeats"]) == (3, strategy, 2)
    rule = Rule(**{name: options[name] for name in vars(RULE)})
    pool = annotate(study, {row: [0] for row in range(12)}, 32, unlabeled=True)
    rounds = select_and_solve(study, pool, [strategy], [1, 3], 2, 0, rule)
    written = [read_safetensors(path)[1] for path in sorted((tmp_path / "out").iterdir())]
    wanted = [list(one.task.rows) for one in rounds if len(one.task.rows) == 3]
    assert [facts["rows"] for facts in written] == wanted
    halves = selection.candidates(12, 2, 0)
    assert wanted != [half[:3].tolist() for half in halves], "else it picked at random"


def test_fit_fewshot_writes_an_extractor_a_repeat(study, tmp_path):
    from stages.fit_fewshot import fit_fewshot

    paths, options = arguments(study, tmp_path)
    flatten(fit_fewshot)(*paths, shots=2, selection="random", **options)
    written = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in written] == ["0.safetensors", "1.safetensors"]
    assert load_extractor(written[0]).taps == study.taps
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["shots"] == 2 and found["labeled_pixels"] == 2 * 32 * 32
    assert set(found["miou_per_image"]) == {
        "mean",
        "standard_deviation",
        "maximum_deviation",
        "of_full_lse",
    }
    assert "seconds" not in json.dumps(found), "no other machine would repeat it"
    costs = json.loads((tmp_path / "costs.json").read_text())
    assert set(costs) == {"fits and scores", "fits of 2-shot LSEs"}
    assert costs["fits and scores"]["seconds"] > 0
    save_extractor(tmp_path / "again.safetensors", load_extractor(written[1]), {})


def test_sweep_fewshot_writes_a_table(study, tmp_path):
    from stages.sweep_fewshot import sweep_fewshot

    paths, options = arguments(study, tmp_path)
    kinds = {"selections": ["random", "committee"], "stroke_budgets": [8], "stroke_images": [2]}
    flatten(sweep_fewshot)(*paths, sweep_shots=[1], **kinds, **options)
    with open(tmp_path / "out") as file:
        table = list(csv.DictReader(file))
    assert [row["annotation"] for row in table] == ["full"] * 2 + ["strokes"] * 2 + ["full"] * 4
    assert not [name for name in table[0] if "seconds" in name]
    assert [row["selection"] for row in table][4:] == ["random", "committee"] * 2
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["strokes"]["2 samples"]["8"]["labeled_pixels"] == 8
    assert "gain" in found["selection"]["committee"]["1"]
    costs = json.loads((tmp_path / "costs.json").read_text())
    assert set(costs) == {"whole sweep", "fits of 1-shot LSEs"}
