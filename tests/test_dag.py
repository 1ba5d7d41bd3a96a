"""The whole pipeline at a small size, with DVC, the published 64 px generator and our teachers."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
COPIED = (
    "pipeline",
    "stages",
    "checkpoints",
    "edits",
    "labels",
    "annotations",
    "dvc.yaml",
    "dvc.lock",
    ".dvcignore",
)
COPIED += (".gitignore",)

pytestmark = [pytest.mark.dag, pytest.mark.real, pytest.mark.timeout(900)]


class Project:
    """A copy of the project with one small study, and its dvc."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.env = os.environ | {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": "",
            "DVC_NO_ANALYTICS": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        self.env.pop("PIPELINE_STORE", None)
        self.env.pop("DVC_ROOT", None)

    def run(self, *words: str, check: bool = True) -> str:
        """stdout and stderr of a command in the project."""
        done = subprocess.run(
            words, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def ran(self, output: str) -> set[str]:
        """Names of the stages that a `dvc repro` or `dvc exp run` really ran."""
        return set(re.findall(r"Running stage '([^']+)'", output))

    def set(self, **changes: object) -> None:
        """Change parameters: dotted keys with `__` for the dots."""
        path = self.folder / "params.yaml"
        params = yaml.safe_load(path.read_text())
        for key, value in changes.items():
            *parents, last = key.split("__")
            section = params
            for parent in parents:
                section = section[parent]
            section[last] = value
        path.write_text(yaml.safe_dump(params, sort_keys=False))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("project")
    for name in COPIED:
        source = REPO / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / name)
    (folder / ".dvc").mkdir()
    shutil.copy(REPO / ".dvc" / "config", folder / ".dvc" / "config")
    shutil.copy(REPO / ".dvc" / ".gitignore", folder / ".dvc" / ".gitignore")
    params = yaml.safe_load((REPO / "params.yaml").read_text())
    params["studies"] = {"digiface": params["studies"]["digiface"]}
    params["studies"]["digiface"]["sample"] |= {
        "train": 48,
        "validation": 16,
        "test": 16,
        "pool": 8,
    }
    params["studies"]["digiface"]["features"]["samples_per_shard"] = 16
    params["extractors"] = {"names": ["lse", "nse1"]}
    params["fit_extractor"] |= {"iterations": 6, "epochs": 1, "l2": [0.01, 0.001]}
    params["fit_extractor"] |= {"steps": 30, "looks": 2, "nse2_width": 8}
    params["selection_fit"] = {"steps": 20, "looks": 2}
    params["measure_controls"] |= {"controls": ["fourier_rgb"], "iterations": 6, "l2": [0.01]}
    params["studies"]["digiface"]["geometry"] |= {"iterations": 6, "fair_images": 8}
    params["measure_geometry"] |= {"greedy_taps": 2}
    params["shots"] = 4
    params["fewshot"] |= {"repeats": 2}
    params["fewshot_rule"] |= {"iterations": 10, "pixels_per_sample": 64}
    params["sweep_fewshot"] |= {
        "shots": [1, 2],
        "repeats": 2,
        "selections": ["random", "uncertain"],
    }
    params["sweep_fewshot"] |= {"stroke_budgets": [64], "stroke_images": [2]}
    params["studies"]["digiface"]["scs"] |= {"targets": 2, "samples": 2, "scs_shots": [1]}
    params["studies"]["digiface"]["scs"] |= {"refits": 2, "rate_targets": 1}
    params["measure_sampling"] |= {"candidates": 2, "steps": 3, "rates": [0.1], "repeats": 2}
    # Both apply to the first two test samples, so the second takes the first one's vectors.
    params["studies"]["digiface"]["edits"] |= {"kinds": ["add_hat", "grow_hair"], "samples": 2}
    params["studies"]["digiface"]["edits"] |= {"rows": 16}
    params["measure_editing"] |= {"steps": 3}
    params["studies"]["digiface"]["directions"] |= {"random": 6, "samples": 3, "color_samples": 2}
    params["studies"]["digiface"]["directions"] |= {"boundary_samples": 40}
    params["find_directions"] |= {"top": 4, "spread_samples": 200, "boundary_share": 0.1}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    for wheel in (REPO / ".store" / "wheels").glob("*.whl"):
        (folder / ".store" / "wheels").mkdir(parents=True, exist_ok=True)
        shutil.copy(wheel, folder / ".store" / "wheels")
    project = Project(folder)
    project.run("git", "init", "-q")
    project.run("git", "config", "user.email", "test@example.org")
    project.run("git", "config", "user.name", "test")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "start")
    project.first = project.run(sys.executable, "-m", "stages.reproduce")  # make repro
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "study")
    return project


STUDY = "digiface"
FITS = {f"fit_extractor@{STUDY}-{e}" for e in ("lse", "nse1")}
EVALUATIONS = {f"evaluate_extractor@{STUDY}"}
LISTS = {
    f"{verb}_{labels}@{STUDY}" for verb in ("fit", "evaluate") for labels in ("full", "selected")
}
SELECTION = {f"{stage}@{STUDY}" for stage in ("select_categories", "label_selected")}
COMPARISONS = ("compare_extractors", "measure_controls", "measure_geometry")
COMPARED = {f"{stage}@{STUDY}" for stage in COMPARISONS}
FEWSHOT = {f"fit_fewshot@{STUDY}", f"sweep_fewshot@{STUDY}"}
CONTROLLED = {f"{stage}@{STUDY}" for stage in ("measure_sampling", "measure_editing")}
DIRECTIONS = {f"find_directions@{STUDY}"}
STYLED = {f"edit_style@{STUDY}"}  # a family without styles: it says so
REPORTS = {"make_tables", f"make_figures@{STUDY}"}
REFITTED = (
    FITS | EVALUATIONS | LISTS | SELECTION | COMPARED | FEWSHOT | CONTROLLED | STYLED | REPORTS
)
REFITTED |= DIRECTIONS


def test_the_first_run_makes_everything(project: Project):
    assert project.ran(project.first) >= REFITTED | {f"cache_features@{STUDY}"}
    metrics = json.loads((project.folder / "reports/metrics/digiface/scores/lse.json").read_text())
    assert metrics["against_teacher"]["images"] == 16
    # Skin is most of a face: even 48 samples teach it. A shifted or shuffled mask would not pass.
    assert metrics["against_teacher"]["miou_dataset"]["per_class"]["skin"] > 50
    figures = project.folder / "reports/figures/digiface"
    names = ("masks", "training", "fewshot", "confusion", "sampling", "sampling_rates", "editing")
    names += ("directions",)
    names += ("geometry", "cosines", "centers", "taps")
    for name in names:
        assert (figures / f"{name}.png").stat().st_size > 10_000
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
    from pipeline.extractors import load_extractor

    kept = json.loads((project.folder / "reports/metrics/digiface/selection.json").read_text())
    assert kept["kept"] and kept["dropped"], "48 samples do not teach an earring"
    for name in ("lse", "nse1", "nse2"):
        path = project.folder / f"data/extractors/digiface_selected/{name}.safetensors"
        assert list(load_extractor(path).classes) == ["bg", *kept["kept"]]


def test_shots_run_the_few_shot_fit_what_it_guides_and_the_reports_alone(project: Project):
    output = project.run("dvc", "exp", "run", "--temp", "-S", "shots=2")
    assert project.ran(output) == {f"fit_fewshot@{STUDY}"} | CONTROLLED | REPORTS
    assert "caching" not in output


def test_queued_shots_share_the_stores(project: Project):
    before = {p: p.stat().st_mtime_ns for p in (project.folder / ".store").rglob("c/*/0/0")}
    assert before, "there are shards"
    project.run("dvc", "exp", "run", "--queue", "-S", "shots=1,3")
    output = project.run("dvc", "exp", "run", "--run-all")
    assert project.ran(output) == {f"fit_fewshot@{STUDY}"} | CONTROLLED | REPORTS
    assert "caching" not in output
    after = {p: p.stat().st_mtime_ns for p in (project.folder / ".store").rglob("c/*/0/0")}
    assert after == before, "no shard was written again"
    shown = project.run("dvc", "exp", "show", "--csv")
    assert {"1", "3"} <= {row.split(",")[-1] for row in shown.splitlines()} or ",1," in shown


def test_the_plan_is_printed_before_the_work(project: Project):
    assert "plan: features" in project.first
    assert "GiB on disk at peak" in project.first


def test_a_second_run_runs_nothing(project: Project):
    output = project.run("dvc", "repro")
    assert not project.ran(output)
    assert "up to date" in output


def test_one_parameter_runs_its_dependents_and_flips_back_from_the_cache(project: Project):
    before = (project.folder / "reports/metrics/digiface/scores/lse.json").read_text()
    project.set(fit_extractor__pixel_budget=1500)
    assert project.ran(project.run("dvc", "repro")) == REFITTED
    assert (project.folder / "reports/metrics/digiface/scores/lse.json").read_text() != before
    assert "pixel_budget" in project.run("dvc", "params", "diff")
    assert "miou_per_image" in project.run("dvc", "metrics", "diff")
    project.set(fit_extractor__pixel_budget=131072)
    assert not project.ran(project.run("dvc", "repro"))
    assert (project.folder / "reports/metrics/digiface/scores/lse.json").read_text() == before


def test_an_experiment_shares_the_store_and_shows(project: Project):
    output = project.run("dvc", "exp", "run", "--temp", "-S", "measure_controls.pixel_budget=1024")
    assert project.ran(output) == {f"measure_controls@{STUDY}"} | REPORTS
    assert "caching" not in output
    assert "1024" in project.run("dvc", "exp", "show", "--csv")


def test_annotations_change_the_few_shot_fits_alone(project: Project):
    drawn = project.folder / "annotations" / "mine"
    drawn.mkdir()
    (drawn / "README.md").write_text("not yet")
    project.set(studies__digiface__annotations="annotations/mine")
    said = project.run("dvc", "status", "--json").splitlines()
    project.set(studies__digiface__annotations="annotations/none")
    [changed] = [json.loads(line) for line in said if line.startswith("{")]
    assert set(changed) == {f"fit_fewshot@{STUDY}", f"measure_sampling@{STUDY}"}


def test_an_edit_of_words_runs_nothing_but_the_trace(project: Project):
    path = project.folder / "pipeline" / "errors.py"
    kept = path.read_text()
    path.write_text(kept.replace('"""', '"""In other words: ', 1) + "\n# and a remark\n")
    assert project.ran(project.run("dvc", "repro")) == {"trace_imports"}
    path.write_text(kept)
    assert not project.ran(project.run("dvc", "repro"))


def test_a_reader_heals_a_lost_store(project: Project):
    for path in (project.folder / ".store/pixels").glob("*/train/columns/c/0/0/0"):
        path.unlink()
    project.set(fit_extractor__pixel_budget=2000)
    output = project.run("dvc", "repro", f"fit_extractor@{STUDY}-lse")
    assert "1 shards" in output
    assert "stages.cache_pixels" in output
    project.set(fit_extractor__pixel_budget=131072)
    project.run("dvc", "repro", f"fit_extractor@{STUDY}-lse")
    assert "0 of" in project.run(sys.executable, "-m", "stages.store", "verify")


def test_the_recipe_is_a_solver(project: Project):
    features, masks, pixels = (
        "data/features/digiface.json",
        "data/masks/digiface.zarr.zip",
        "data/pixels/digiface.json",
    )
    options = {"names": "lse", "solver": "adam", "epochs": 1}
    options |= {"l2": 1, "iterations": 1, "pixel_budget": 1, "device": "cpu"}
    options |= {"steps": 1, "batch": 1, "window": 64, "looks": 1, "patience": 1}
    options |= {"nse2_width": 8, "learning_rates": "nse1=0.01"}
    project.run(
        *(sys.executable, "-m", "stages.fit_extractor", features, masks, pixels),
        *("adam", "adam"),
        *(f"--{name}={value}" for name, value in options.items()),
    )
    report = json.loads((project.folder / "adam/lse_fit.json").read_text())
    assert report["solver"] == "adam"
    assert report["passes"] == 40 + 324 + 640  # a fiftieth of the schedule, in whole steps


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"studies__digiface__load__sha256": "0" * 64}, "another sha256"),
        ({"cache_features__max_gib": 0.0001}, "fewer samples"),
        ({"fit_extractor__iterationz": 3}, "No such option: --iterationz"),
    ],
)
def test_bad_parameters_are_one_sentence(project: Project, change: dict, said: str):
    kept = (project.folder / "params.yaml").read_text()
    lock = (project.folder / "dvc.lock").read_text()
    try:
        project.set(**change)
        done = project.run("dvc", "repro", check=False)
        assert "ERROR" in done
        assert said in done
        assert "Traceback" not in done
    finally:
        (project.folder / "params.yaml").write_text(kept)
        (project.folder / "dvc.lock").write_text(lock)
        project.run("dvc", "checkout", check=False)
