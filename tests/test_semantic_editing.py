"""Semantic image editing: its losses, a planted edit, scores, and the study that resumes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import toys
from PIL import Image

from pipeline.data.arrays import Group, write_group
from pipeline.editing.optimize import ByExtractor, Rendered
from pipeline.editing.options import Start
from pipeline.editing.semantic.cases import Samples, Setup, choose_cases, pick_z, see
from pipeline.editing.semantic.files import parse_edit
from pipeline.editing.semantic.method import (
    by_color,
    by_mask,
    cross_entropy,
    edit_latents,
    masked_mse,
    squared_norm,
    within,
)
from pipeline.editing.semantic.options import Rule, Success
from pipeline.editing.semantic.outcomes import edit_cases, edit_together
from pipeline.editing.semantic.scores import kept_iou, lab_change, region_iou, summarize
from pipeline.editing.semantic.study import run_study, write_study
from pipeline.extractors.networks import LSE, save_extractor
from pipeline.generators.dcgan import DCGAN
from pipeline.generators.registry import load_generator
from pipeline.generators.taps import record
from pipeline.reporting.editing import draw_study, one_case_an_edit
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json
from pipeline.runtime.weights import read_safetensors, write_safetensors
from pipeline.teachers.labels import FACE15
from stages import flatten


def test_cross_entropy_is_the_mean_over_pixels_of_each_sample():
    logits = torch.zeros(2, 4, 3, 3)
    logits[1, 2] = 50.0  # sure of class 2 at every pixel
    target = torch.full((2, 3, 3), 2)
    assert cross_entropy(logits, target).tolist() == pytest.approx([np.log(4), 0.0], abs=1e-6)


def test_a_masked_error_counts_the_masks_pixels_alone():
    a, b = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    a[..., :2, :], b[..., 2:, :] = 2.0, 9.0  # top: 3 channels of 2^2; bottom: of 9^2
    top = torch.zeros(1, 4, 4)
    top[:, :2] = 1
    assert masked_mse(a, b, top).item() == pytest.approx(12)
    assert masked_mse(a, b, 1 - top).item() == pytest.approx(243)
    assert masked_mse(a, b, torch.zeros(1, 4, 4)).item() == 0  # no pixel: no NaN


def test_color_editing_minimizes_strokes_inside_and_change_outside():
    region = np.zeros((4, 4), bool)
    region[0] = True
    original, stroke = np.full((3, 4, 4), 51, np.uint8), np.full((3, 4, 4), 51, np.uint8)
    stroke[:, 0] = 204
    objective = by_color(stroke[None], original[None], region[None])

    def value(image: np.ndarray) -> float:
        shown = torch.from_numpy(image).float()[None] / 127.5 - 1
        large = F.interpolate(shown, scale_factor=2, mode="nearest")  # areas are averaged
        return objective.value(Rendered(torch.zeros(1, 1), torch.zeros(1, 1), {}, large)).item()

    step = (153 / 127.5) ** 2 * 3
    assert value(stroke) == pytest.approx(0, abs=1e-9)
    assert value(original) == pytest.approx(step, rel=1e-5)
    assert value(np.full((3, 4, 4), 204, np.uint8)) == pytest.approx(step, rel=1e-5)


def test_the_squared_norm_sums_over_layers():
    assert squared_norm(torch.full((2, 3, 5), 2.0)).tolist() == [60.0, 60.0]


@pytest.fixture
def planted():
    """z0 lights the left half of an 8 px tap, z1 the right; class 1 is what shines above 1."""
    generator = DCGAN(z_dim=2, widths=(2,), stem=8).eval().requires_grad_(False)
    conv, norm, _ = generator.blocks[0]
    conv.weight.zero_()
    conv.weight[0, 0, :, :4] = conv.weight[1, 0, :, 4:] = 1.0
    norm.bias.copy_(torch.tensor([0.0, 1.0]))  # channel 1 is constant
    generator.to_rgb.weight.normal_(generator=torch.Generator().manual_seed(0)).mul_(0.1)
    extractor = LSE(("dark", "bright"), generator.taps)
    extractor.set_matrix(torch.tensor([[0.0, 20.0], [20.0, 0.0]]))
    return generator, extractor.requires_grad_(False)


@pytest.mark.parametrize("space", ["z", "z_per_layer", "w_plus"])
def test_an_edit_moves_what_it_asks_for_alone(planted, space):
    generator, extractor = planted
    target = np.zeros((16, 16), np.uint8)
    target[:, :8] = 1
    rule = Rule(space, steps=80, learning_rate=0.03, near=0.1, prior=0.0)
    objective = by_mask(ByExtractor(extractor), target[None])
    (found,) = edit_latents(generator, torch.tensor([[0.5, 0.5]]), objective, rule)
    left, right = found.vector[0].tolist()
    assert left > 0.5 and abs(right) < 0.05
    with torch.inference_mode(), record(generator, generator.taps) as features:
        generator.synthesis(torch.stack([found.before, found.after]))
    before, after = extractor.predict(features, 16)
    assert not before.any()
    assert region_iou(after, target, target == 1) > 0.9
    assert kept_iou(before, after, target == 1) > 0.9
    assert found.losses[-1] < 0.2 * found.losses[0]
    assert all(p.grad is None for p in (*generator.parameters(), *extractor.parameters()))


def test_the_priors_hold_latents_back(planted):
    generator, extractor = planted
    target, z = np.ones((16, 16), np.uint8), torch.tensor([0.5, 0.5])
    objective = by_mask(ByExtractor(extractor), target[None])
    moved = {}
    for name, more in (("free", {}), ("near", {"near": 50.0}), ("prior", {"prior": 50.0})):
        rule = Rule("z", 60, 0.02, **({"near": 0.0, "prior": 0.0} | more))
        (moved[name],) = edit_latents(generator, z[None], objective, rule)
    assert moved["free"].vector.min() > 0.5
    assert moved["near"].vector.abs().max() < 0.2
    assert moved["prior"].after.norm() < moved["near"].after.norm() < moved["free"].after.norm()


def test_an_extractor_within_a_resolution_lacks_the_finer_taps_terms():
    generator = toys.toy_network("dcgan")
    whole = LSE(("a", "b", "c"), generator.taps)
    part = within(whole, generator.taps[1].resolution)
    assert part.taps == generator.taps[:2]
    with torch.inference_mode(), record(generator, generator.taps) as features:
        generator.synthesis(generator.mapping(torch.randn(1, generator.z_dim)))
        dark = {
            t.name: f * (t in part.taps) for t, f in zip(whole.taps, features.values(), strict=True)
        }
        expected = whole.logits(dark, 32)
        assert torch.allclose(part.logits(features, 32), expected, atol=1e-5)


def test_scores_look_where_they_say():
    region = np.zeros((4, 4), bool)
    region[:2] = True
    target = np.where(region, 3, 1).astype(np.uint8)
    predicted = target.copy()
    predicted[0], predicted[3] = 1, 3  # half the region missed, half of the rest overrun
    assert region_iou(predicted, target, region) == pytest.approx(0.5)
    assert kept_iou(target, predicted, region) == pytest.approx(0.5)
    assert kept_iou(target, target, ~region) == 1
    black, white = np.zeros((3, 4, 4), np.uint8), np.full((3, 4, 4), 255, np.uint8)
    mixed = np.where(region, white, black)
    assert lab_change(black, mixed, ~region) == 0
    assert lab_change(black, mixed, region) == pytest.approx(100, abs=0.1)


def test_differences_are_paired_by_edit_and_sample():
    def row(edit, i, method, value):
        scores = dict.fromkeys(("iou_region_teacher", "iou_kept_judge", "lab_outside"), 0.0)
        scores |= {"iou_region_judge": value, "success": 1.0}
        return {"edit": edit, "row": i, "kind": "edited", "method": method} | scores

    rows = [row("hat", i, "teacher", 0.1 * i) for i in range(5)]
    rows += [row("hat", i, "full", 0.1 * i + 0.3) for i in reversed(range(5))]
    found = summarize(rows)
    difference = found["paired"]["full - teacher"]["iou_region_judge"]
    assert difference == {"mean": 0.3, "low": 0.3, "high": 0.3}  # paired: no spread at all
    assert found["edited"]["teacher"]["iou_region_judge"]["mean"] == pytest.approx(0.2)
    assert found["by_edit"]["hat"]["full"] == pytest.approx(0.5)


@pytest.fixture(scope="module")
def setup(checkpoints, tmp_path_factory):
    """A random generator, teacher, judge and LSE at 32 px."""
    folder = tmp_path_factory.mktemp("editing")
    paths = {}
    for seed, name in enumerate(("unet", "feature_pyramid")):
        paths[name] = folder / f"{name}.safetensors"
        write_safetensors(paths[name], toys.teacher_tensors(name, seed), {"architecture": name})
    generator = load_generator(checkpoints["dcgan"])
    paths["lse"] = folder / "lse.safetensors"
    torch.manual_seed(0)
    save_extractor(paths["lse"], LSE(FACE15, generator.taps), {"name": "lse"})
    return Setup(
        str(checkpoints["dcgan"]),
        str(paths["unet"]),
        str(paths["feature_pyramid"]),
        32,
        {"full": str(paths["lse"])},
        rule=Rule("z", steps=2),
    )


@pytest.fixture(scope="module")
def source(latents):
    z, seeds = (Group(latents["dcgan"]).read("test", name) for name in ("z", "seeds"))
    return Samples(z, seeds, np.full((15, 3), 128.0), 32)


@pytest.fixture(scope="module")
def edits(setup, source):
    """One that applies to every sample of the random teacher, and one that applies to none."""
    own = see(setup, source.z[0])[1]
    class_ids = np.bincount(own.ravel(), minlength=15)
    common, absent = FACE15[int(class_ids.argmax())], FACE15[int(class_ids.argmin())]
    oval = {"center": [0.5, 0.5], "size": [0.6, 0.6]}
    return [
        parse_edit("oval", {"steps": [{"do": "paint", "to": absent, "shape": oval}]}),
        parse_edit(
            "never", {"steps": [{"do": "paint", "to": common, "shape": oval}], "area": [2, 3]}
        ),
    ]


def test_cases_are_the_first_samples_that_an_edit_applies_to(setup, source, edits):
    cases, chosen = choose_cases(setup, edits, source, 2)
    assert [(case.edit, case.row) for case in cases] == [("oval", 0), ("oval", 1)]
    assert chosen == {"oval": {"tried": 2, "found": 2}, "never": {"tried": 3, "found": 0}}
    with pytest.raises(InputError, match="none applies to the first 3 samples"):
        choose_cases(setup, edits[1:], source, 2)


def kept(folder):
    return {path.name: path.stat().st_ino for path in (folder / "pieces" / "edits").glob("*.npz")}


def test_an_interrupted_study_goes_on_and_ends_as_an_uninterrupted_one(
    setup, source, edits, store_root, monkeypatch
):
    cases, _ = choose_cases(setup, edits[:1], source, 2)
    whole = edit_cases(setup, cases, 1)
    files = sorted((store_root / "pieces" / "edits").iterdir())
    assert (
        len(whole) == 2 * 3 and len(files) == 3
    )  # cases x methods; a batch of a method is a piece
    files[2].unlink()  # what a killed run leaves: finished outcomes, and half of one
    files[2].with_name(f"{files[2].name}.partial").write_bytes(b"half")
    before = kept(store_root)
    resumed = edit_cases(setup, cases, 1)
    after = kept(store_root)
    assert sorted(after) == [file.name for file in files]
    assert before.items() <= after.items()  # nothing done twice
    for key, outcome in whole.items():
        assert (outcome.after == resumed[key].after).all()
        assert (outcome.judge_mask == resumed[key].judge_mask).all()
        assert outcome.cpu_seconds > 0 and resumed[key].cpu_seconds > 0


def test_an_outcome_depends_on_all_that_made_it(setup, source, edits, store_root):
    cases, _ = choose_cases(setup, edits[:1], source, 1)
    edit_cases(setup, cases, 1)
    for changed in (replace(setup, rule=Rule("z", steps=3)), replace(setup, judge=setup.teacher)):
        names = set(kept(store_root))
        edit_cases(changed, cases, 1)
        assert len(set(kept(store_root)) - names) == 3


def test_another_extractor_makes_only_its_own_edits(setup, source, edits, store_root, tmp_path):
    cases, _ = choose_cases(setup, edits[:1], source, 2)
    edit_cases(setup, cases, 1)
    names = set(kept(store_root))
    other = tmp_path / "other.safetensors"
    torch.manual_seed(1)
    save_extractor(other, LSE(FACE15, setup.generator().taps), {"name": "lse"})
    edit_cases(replace(setup, extractors={"full": str(other)}), cases, 1)
    assert len(set(kept(store_root)) - names) == 1, "both cases by one method"


def test_a_study_scores_every_method_and_transfer(setup, source, edits, tmp_path):
    study = run_study(setup, edits, source, 2, Success(), 1)
    kinds = [(row["kind"], row["method"]) for row in study.rows]
    assert kinds.count(("unedited", "none")) == 2
    for method in ("color", "teacher", "full"):
        assert kinds.count(("edited", method)) == 2
        assert kinds.count(("transferred", method)) == 1  # from the first sample to the second
    assert study.report["unedited"]["none"]["lab_outside"]["mean"] == 0
    assert set(study.report["paired"]) == {"color - teacher", "full - teacher"}
    assert set(study.costs) == {f"an edit by {name}" for name in setup.methods}
    assert study.costs["an edit by full"]["seconds"] > 0
    assert "seconds" not in str(study.report), "no other machine would repeat it"
    write_study(tmp_path / "out", study, setup.checkpoint)
    pictures = Group(tmp_path / "out" / "pictures.zarr.zip")
    assert pictures.read("full", "masks").shape == (2, 32, 32)
    vectors, facts = read_safetensors(tmp_path / "out" / "vectors.safetensors")
    assert set(vectors) == {f"oval/{i}/{m}" for i in (0, 1) for m in setup.methods}
    assert facts["generator"]
    rows = (tmp_path / "out" / "scores.csv").read_text().splitlines()
    assert len(rows) == 1 + len(study.rows) and "seconds" not in rows[0]
    draw_study(tmp_path / "out" / "pictures.zarr.zip", tmp_path / "figure.png", 5)
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.width > 1000  # ten columns
        assert len(np.unique(np.asarray(figure.convert("L")))) > 50  # not blank
    assert one_case_an_edit(study.attributes["cases"], 5) == [0]


def test_color_and_the_teacher_take_the_first_samples_of_each_edit(setup, source, edits, tmp_path):
    with pytest.raises(InputError, match="got image_samples 0; wanted at least 1"):
        replace(setup, image_samples=0)
    few = replace(setup, image_samples=1)
    study = run_study(few, edits, source, 2, Success(), 1)
    edited = [(row["method"], row["row"]) for row in study.rows if row["kind"] == "edited"]
    assert sorted(edited) == [("color", 0), ("full", 0), ("full", 1), ("teacher", 0)]
    moved = {row["method"] for row in study.rows if row["kind"] == "transferred"}
    assert moved == {"full"}
    pictures = study.arrays["teacher/images"]
    assert pictures[0].any() and not pictures[1].any()
    rows = {(row["method"], row["row"]): row for row in study.rows if row["kind"] == "edited"}
    gap = study.report["paired"]["full - teacher"]["iou_region_judge"]["mean"]
    one, other = (rows[m, 0]["iou_region_judge"] for m in ("full", "teacher"))
    assert gap == pytest.approx(one - other, abs=1e-4), "on the teacher's samples alone"


@pytest.mark.parametrize("method", ["color", "teacher", "full"])
def test_a_batch_of_cases_goes_as_each_alone(setup, source, edits, method):
    cases, _ = choose_cases(setup, edits[:1], source, 3)
    together = edit_together(setup, cases, method)
    for case, one in zip(cases, together, strict=True):
        (alone,) = edit_together(setup, [case], method)
        np.testing.assert_allclose(one.after, alone.after, atol=1e-4)
        np.testing.assert_allclose(one.losses, alone.losses, atol=1e-4, rtol=1e-4)


def test_latents_of_another_generator_are_refused(setup, source, tmp_path):
    arrays = {"test/z": source.z}
    write_group(tmp_path / "foreign.zarr.zip", arrays, {"generator": "0" * 16})
    with pytest.raises(InputError, match="of the same study"):
        pick_z(setup, Start(tmp_path / "foreign.zarr.zip"))
    write_group(tmp_path / "own.zarr.zip", arrays, {})
    assert (pick_z(setup, Start(tmp_path / "own.zarr.zip", row=1)) == source.z[1]).all()
    with pytest.raises(InputError, match="row 3 of test"):
        pick_z(setup, Start(tmp_path / "own.zarr.zip", row=3))


def test_an_extractor_of_other_classes_is_refused(setup, source, edits, tmp_path):
    generator = setup.generator()
    save_extractor(tmp_path / "two.safetensors", LSE(("a", "b"), generator.taps), {})
    foreign = replace(setup, extractors={"full": str(tmp_path / "two.safetensors")})
    cases, _ = choose_cases(setup, edits[:1], source, 1)
    with pytest.raises(InputError, match="with classes a, b"):
        edit_cases(foreign, cases, 1)


def test_one_sample_is_edited_by_ones_own_file(setup, edits, tmp_path):
    from stages.edit_semantics import edit_semantics as stage

    edit_semantics = flatten(stage)

    (tmp_path / "mine.json").write_text(edits[0].content)
    given = (Path(setup.checkpoint), Path(setup.teacher))
    options = {
        "edit": tmp_path / "mine.json",
        "out": tmp_path / "out",
        "label_size": 32,
        "steps": 1,
        "space": "z",
        "device": "cpu",
    }
    edit_semantics(*given, extractor=Path(setup.extractors["full"]), **options)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    pictures = {"before", "after", "mask_before", "mask_target", "mask_after"}
    assert names == {f"{n}.png" for n in pictures} | {"vector.safetensors", "scores.json"}
    scores = read_json(tmp_path / "out" / "scores.json")
    assert scores["edit"] == "mine" and scores["method"] == "extractor"
    (tmp_path / "mine.json").write_text(edits[1].content)
    with pytest.raises(InputError, match="choose another sample"):
        edit_semantics(*given, **options)
