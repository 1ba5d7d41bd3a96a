"""The whole pipeline at a small size, with DVC: what runs, and what does not run again."""

import json

import pytest
from toy_project import REFITTED, STUDY, Project

# A file's first test may wait for the other file to make the project.
pytestmark = [pytest.mark.dag, pytest.mark.real, pytest.mark.timeout(1800)]


def test_the_first_run_makes_everything(project: Project):
    own = {f"{stage}@{STUDY}" for stage in ("cache_features", "fit_appearance")}
    assert project.ran(project.first) >= REFITTED | own
    metrics = json.loads((project.folder / "data/results/digiface/scores/lse.json").read_text())
    assert metrics["against_teacher"]["images"] == 16
    # Skin is most of a face: even 32 samples teach it. A shifted or shuffled mask would not pass.
    assert metrics["against_teacher"]["miou_dataset"]["per_class"]["skin"] > 50
    figures = project.folder / "reports/figures/digiface"
    names = ("masks", "training", "fewshot", "confusion", "sampling", "sampling_rates", "editing")
    names += ("directions",)
    names += ("geometry", "cosines", "centers", "taps", "appearance")
    for name in names:
        assert (figures / f"{name}.png").stat().st_size > 10_000
    headline = json.loads((project.folder / "reports/metrics/digiface.json").read_text())
    assert {
        "lse_miou_per_image",
        "teacher_vs_judge_miou_dataset",
        "sampling_agreement_fewshot_lse",
    } <= headline.keys()
    tables = project.folder / "reports/tables"
    for name, line in {
        "table1": "| digiface | control: fourier_rgb |",
        "table2": "| digiface | 2 | 2 |",
        "table3": "| digiface | few-shot LSE, 4 shots | 2 | 2 |",
        "table3_rates": "| digiface | 0.1 | judge |",
        "table3_differences": "| digiface | full LSE | minus teacher in the loop |",
        "table4": "| digiface | selected | NSE-2 |",
        "table5_digiface": "| l_eye |",
        "table6_digiface": "| skin | 95.9 |",
        "geometry_claims": "| digiface | class centers segment (fig 4) |",
        "geometry_centers": "| digiface | centers, raw features |",
        "geometry_classes": "| digiface | skin |",
        "geometry_taps": "| digiface | all, sum in eq (8) |",
        "geometry_nested": "| digiface | 4 | all |",
        "geometry_detectors": "| digiface | skin |",
        "appearance": "| digiface | taps to 32 px |",
        "appearance_taps": "| digiface | block0 |",
        "edits": "| digiface | few-shot LSE | 4 |",
        "edits_differences": "| digiface | color minus teacher |",
        "edits_kinds": "| digiface | grow hair | 2 |",
        "edits_transfer": "| digiface | full LSE | 2 |",
        "style": "| digiface | skipped: dcgan has no style scales",
        "fewshot_classes": "| digiface | skin |",
        "fewshot_selection": "| digiface | uncertain | 2 |",
        "fewshot_strokes": "| digiface | 64 | 2 | strokes |",
    }.items():
        assert line in (tables / f"{name}.md").read_text(), name


def test_extractors_of_the_kept_classes_know_only_these(project: Project):
    from pipeline.extractors.networks import load_extractor

    kept = json.loads((project.folder / "data/results/digiface/selection.json").read_text())
    assert kept["kept"] and kept["dropped"], "32 samples do not teach an earring"
    for name in ("lse", "nse1", "nse2"):
        path = project.folder / f"data/extractors/digiface_selected/{name}.safetensors"
        assert list(load_extractor(path).classes) == ["bg", *kept["kept"]]


def test_the_plan_is_printed_before_the_work(project: Project):
    assert "plan: features" in project.first
    assert "GiB on disk at peak" in project.first


def test_first_results_are_printed_before_the_rest(project: Project):
    assert "# First results of digiface" in project.first
    assert project.first.index("| digiface | LSE |") < project.first.index("measure_editing")


def test_a_second_run_runs_nothing(project: Project):
    output = project.run("dvc", "repro")
    assert not project.ran(output)
    assert "up to date" in output


def test_one_parameter_runs_its_dependents_and_flips_back_from_the_cache(project: Project):
    before = (project.folder / "data/results/digiface/scores/lse.json").read_text()
    project.set(fit_rule__pixel_budget=1500)
    assert project.ran(project.run("dvc", "repro")) == REFITTED
    assert (project.folder / "data/results/digiface/scores/lse.json").read_text() != before
    assert "pixel_budget" in project.run("dvc", "params", "diff")
    diff = project.run("dvc", "metrics", "diff").splitlines()
    assert any("lse_miou" in line for line in diff) and len(diff) <= 42
    assert max(map(len, diff)) <= 120
    project.set(fit_rule__pixel_budget=131072)
    assert not project.ran(project.run("dvc", "repro"))
    assert (project.folder / "data/results/digiface/scores/lse.json").read_text() == before


def test_an_edit_of_words_runs_nothing_but_the_trace(project: Project):
    path = project.folder / "pipeline" / "runtime" / "errors.py"
    kept = path.read_text()
    path.write_text(kept.replace('"""', '"""In other words: ', 1) + "\n# and a remark\n")
    assert project.ran(project.run("dvc", "repro")) == {"trace_imports"}
    path.write_text(kept)
    assert not project.ran(project.run("dvc", "repro"))


def test_annotations_change_the_few_shot_fits_alone(project: Project):
    drawn = project.folder / "annotations" / "mine"
    drawn.mkdir()
    (drawn / "README.md").write_text("not yet")
    project.set(studies__digiface__annotations="annotations/mine")
    said = project.run("dvc", "status", "--json").splitlines()
    project.set(studies__digiface__annotations="annotations/none")
    [changed] = [json.loads(line) for line in said if line.startswith("{")]
    assert set(changed) == {f"fit_fewshot@{STUDY}", f"measure_sampling@{STUDY}"}
