"""The whole pipeline at a small size, with DVC: experiments, lost stores and bad parameters."""

import json
import sys

import pandas
import pytest
from toy_project import CONTROLLED, REPORTS, STUDY, Project

# A file's first test may wait for the other file to make the project.
pytestmark = [pytest.mark.dag, pytest.mark.real, pytest.mark.timeout(1800)]


def pieces(project: Project) -> dict[str, set[str]]:
    """Names of the finished pieces in the store, by kind."""
    folders = (project.folder / ".store/pieces").iterdir()
    return {folder.name: {path.name for path in folder.glob("*.npz")} for folder in folders}


def test_queued_shots_run_what_they_guide_alone_and_share_the_stores(project: Project):
    before = {p: p.stat().st_mtime_ns for p in (project.folder / ".store").rglob("c/*/0/0")}
    assert before, "there are shards"
    scores = pandas.read_csv(project.folder / f"data/edits/{STUDY}/scores.csv")
    cases = ((scores["kind"] == "edited") & (scores["method"] == "fewshot")).sum()
    batches = -(-cases // 4)  # four cases of a 64 px generator are edited as one
    made = pieces(project)
    project.run("dvc", "exp", "run", "--queue", "-S", "shots=1,3")
    output = project.run("dvc", "exp", "run", "--run-all")
    once = {f"fit_fewshot@{STUDY}"} | CONTROLLED | REPORTS
    assert sorted(project.runs(output)) == sorted([*once, *once]), "in each of the two"
    assert "caching" not in output
    after = {p: p.stat().st_mtime_ns for p in (project.folder / ".store").rglob("c/*/0/0")}
    assert after == before, "no shard was written again"
    new = {kind: len(names - made[kind]) for kind, names in pieces(project).items()}
    assert new["edits"] == 2 * batches, "the few-shot method's, none of another"
    assert new["conditional_samples"] <= 2 and new.get("second_moments", 0) == 0
    lines = project.run(sys.executable, "-m", "stages.show_experiments").splitlines()
    assert max(map(len, lines)) <= 140
    shots = next(line.split() for line in lines if line.startswith("shots "))
    assert {"1", "3"} <= set(shots[1:])
    assert any(line.startswith("digiface fewshot_miou_per_image ") for line in lines)
    shown = project.run("dvc", "exp", "show", "--csv")
    assert {"1", "3"} <= {row.split(",")[-1] for row in shown.splitlines()} or ",1," in shown


def test_an_experiment_shares_the_store_and_shows(project: Project):
    output = project.run("dvc", "exp", "run", "--temp", "-S", "measure_controls.pixel_budget=1024")
    assert project.ran(output) == {f"measure_controls@{STUDY}"} | REPORTS
    assert "caching" not in output
    assert "1024" in project.run("dvc", "exp", "show", "--csv")


def test_a_reader_heals_a_lost_store(project: Project):
    for path in (project.folder / ".store/pixels").glob("*/train/columns/c/0/0/0"):
        path.unlink()
    project.set(fit_rule__pixel_budget=2000)
    output = project.run("dvc", "repro", f"fit_extractor@{STUDY}-lse")
    assert "1 shards" in output
    assert "stages.cache_pixels" in output
    project.set(fit_rule__pixel_budget=131072)
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
        *("adam", "adam", "adam/costs.json"),
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
