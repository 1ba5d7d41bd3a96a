"""Every family of generators goes through every stage of dvc.yaml, at toy size, in this process."""

import json
import re
import runpy
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import toys
import yaml
from dvc.repo import Repo
from foreign import WRITERS

from pipeline.data.arrays import Group
from pipeline.data.images import to_uint8
from pipeline.generators.contract import Generator
from pipeline.generators.latents import sample_z
from pipeline.generators.registry import FAMILIES, load_generator
from pipeline.runtime.files import read_json, sha256

ROOT = Path(__file__).parents[1]
PSI = 0.7

pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules after:RuntimeWarning")

# Random images show no faces: the edit paints over whatever is there, and each part of a style is
# half of all classes, so that every sample shows both.
HAT = {"do": "paint", "to": "hat", "shape": {"center": [0.5, 0.5], "size": [0.5, 0.4]}}
PARTS = ["one=skin,eye_g,mouth,hair,ear_r", "two=nose,eye,u_lip,hat,neck"]

# What a toy study has instead of the values of digiface, and instead of the other sections'.
STUDY = {
    "sample": {"train": 8, "validation": 2, "test": 4, "pool": 4, "truncation_psi": PSI},
    "features": {"label_size": 32, "max_tap_resolution": 16},
    "pixels": {"stored": "int8"},
    "geometry": {"pixel_budget": 600, "iterations": 3, "fair_pool": 40, "fair_images": 3},
    "scs": {"targets": 1, "samples": 1, "scs_shots": [1], "refits": 1, "rate_targets": 1},
    "edits": {"kinds": ["wear_a_hat"], "samples": 1, "image_samples": 1, "rows": 4},
    "directions": {"random": 3, "samples": 2, "color_samples": 1, "boundary_samples": 8}
    | {"max_tap_resolution": 16, "mask_size": 32},
}
PARAMS = {
    "device": "cpu",
    "shots": 2,
    "fit_rule": {"pixel_budget": 700, "l2": [0.01, 0.001]}
    | {"batch": 2, "window": 32, "nse2_width": 4},
    "fit_extractor": {"iterations": 5, "steps": 2, "looks": 1},
    "fit_appearance": {"samples": 3, "pixels": 20, "psis": [0.7, 1.0]},
    "measure_controls": {"iterations": 3, "pixel_budget": 500, "l2": [0.01]},
    "measure_geometry": {"greedy_taps": 1, "shown": 1},
    "fewshot_rule": {"iterations": 4, "pixels_per_sample": 64},
    "fewshot": {"repeats": 2},
    "sweep_fewshot": {"sweep_shots": [1, 2], "stroke_budgets": [32], "stroke_images": [1]},
    "measure_sampling": {"candidates": 2, "steps": 1, "rates": [0.1]},
    "measure_editing": {"steps": 1},
    "edit_style": {"parts": PARTS, "pairs": 2, "samples": 2, "resolutions": [8], "counts": [3]}
    | {"cluster_samples": 4, "held_out": 2, "restarts": 1, "min_iou": 0.01}
    | {"epsilons": [5], "lambdas": [2], "interpolations": [0.5]},
    "find_directions": {"top": 3, "compared": 1, "spread_samples": 50, "boundary_share": 0.2}
    | {"shown": 1, "alphas": [-1, 1]},
    "selection_fit": {"iterations": 5, "steps": 2, "looks": 1},
    "select_categories": {"threshold": 2},
    "make_figures": {"samples": 1},
}


def changed(values: dict, changes: dict) -> dict:
    """`values` with some of them changed, section by section."""
    return values | {
        key: changed(values[key], new) if isinstance(new, dict) else new
        for key, new in changes.items()
    }


def write_project(family: str) -> Generator:
    """dvc.yaml with params of one toy study, and the files that it names, in this folder."""
    file = Path(f"{family}.bin")  # no two families share a name: networks are cached by path
    if family in WRITERS:
        file.write_bytes(WRITERS[family]())
    else:  # published in wheels only
        toys.write_generator(file, family)
    generator = load_generator(file)
    with torch.inference_mode():
        z = torch.from_numpy(sample_z(range(4), generator.z_dim))
        images = to_uint8(generator.synthesis(generator.mapping(z, PSI)), 32)
    own = {"load": {"file": str(file), "sha256": sha256(file)}}
    for seed, who in enumerate(("teacher", "judge")):
        own[who] = f"{family}_{who}.safetensors"
        toys.teacher_of_many_classes(Path(own[who]), images, seed)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    study = changed(params["studies"]["digiface"], STUDY) | own
    params = changed(params, PARAMS) | {"studies": {family: study}, "compute": "float32"}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    for name in ("dvc.yaml", ".dvc/config", study["labels"], study["labels_full"]):
        Path(name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, name)
    for name in ("edits", study["annotations"]):
        Path(name).mkdir(parents=True)
    Path("edits/wear_a_hat.json").write_text(json.dumps({"steps": [HAT]}))
    return generator


def run(command: str) -> None:
    """A command of dvc.yaml, without a process of its own."""
    python, option, module, *words = shlex.split(command)
    assert (python, option) == ("python", "-m")
    sys.argv = [module, *words]
    with pytest.raises(SystemExit) as end:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert not end.value.code, command


@dataclass(frozen=True)
class Study:
    """A family's study, all stages of which have run."""

    generator: Generator  # of the published file itself
    folder: Path
    outs: list[Path]  # that dvc.yaml declares

    def group(self, kind: str) -> Group:
        return Group(self.folder / "data" / kind / f"{self.generator.family}.zarr.zip")

    def metrics(self, name: str) -> dict:
        return read_json(self.folder / "data/results" / self.generator.family / f"{name}.json")


@pytest.fixture(scope="module", params=FAMILIES)
def study(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PIPELINE_STORE", str(folder / "store"))
        patch.setattr("sys.argv", [])
        patch.setattr("os.sched_getaffinity", lambda pid: {0})  # one core: no worker processes
        generator = write_project(request.param)
        with Repo(config={"core": {"no_scm": True}}) as project:
            stages = [
                stage
                for stage in project.index.stages
                if not stage.frozen and stage.name != "trace_imports"  # of the code, not of a study
            ]
        for stage in stages:
            run(stage.cmd)
    return Study(generator, folder, [Path(out.fs_path) for stage in stages for out in stage.outs])


def test_times_stand_in_files_of_costs_alone(study):
    """So that results, tables and plots of two machines compare."""
    assert len(list((study.folder / "data/costs" / study.generator.family).iterdir())) > 5
    kept = ("data/results", "data/plots", "data/edits", "reports/tables", "reports/metrics")
    found = [p for folder in kept for p in (study.folder / folder).rglob("*") if p.is_file()]
    texts = [p for p in found if p.suffix in (".json", ".csv", ".md") and p.stem != "costs"]
    assert len(texts) > 50
    assert not [p for p in texts if re.search(r"seconds|\bCPU s\b", p.read_text())]


def test_every_stage_writes_what_it_declares(study):
    assert len(study.outs) > 40
    for out in study.outs:
        assert any(out.iterdir()) if out.is_dir() else out.stat().st_size, out


def test_metrics_are_numbers_or_null(study):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    files = list((study.folder / "data/results").rglob("*.json"))
    assert len(files) > 20
    assert all(json.loads(file.read_text(), parse_constant=refuse) for file in files)


def test_the_samples_are_those_of_the_published_file(study):
    latents, images = study.group("latents"), study.group("images")
    z, ws = (torch.from_numpy(latents.read("test", name)) for name in ("z", "ws"))
    torch.testing.assert_close(ws, study.generator.mapping(z, PSI))
    drawn = to_uint8(study.generator.synthesis(ws), 32).astype(int)
    assert np.abs(drawn - images.read("test", "images")).max() <= 1 and drawn.std() > 0


def test_extractors_are_scored_on_several_classes(study):
    folder = study.folder / "data/results" / study.generator.family / "scores"
    scores = {path.stem: read_json(path) for path in folder.iterdir()}
    assert scores.keys() >= {"lse", "nse1", "nse2"}
    for one in (labels for found in scores.values() for labels in found.values()):
        assert one["images"] == 4 and 0 < one["pixel_accuracy"] <= 100
    assert len(np.unique(study.group("masks").read("test", "masks"))) > 4
    selection = study.metrics("selection")
    assert selection["kept"] and selection["dropped"]
    assert study.group("masks_selected").attributes["classes"] == ["bg", *selection["kept"]]


def test_families_without_styles_say_so(study):
    style = study.metrics("style")
    if study.generator.styles:
        assert set(style["parts"]) == {"one", "two"}
    else:
        assert f"{study.generator.family} has no style scales" in style["skipped"]


def test_figures_and_tables_show_the_family(study):
    family = study.generator.family
    names = {"masks", "training", "fewshot", "confusion", "sampling", "sampling_rates", "editing"}
    names |= {"directions", "geometry", "cosines", "centers", "taps", "appearance"}
    if study.generator.styles:
        names |= {"style", "style_clusters", "style_curves", "style_heat"}
    figures = study.folder / "reports/figures" / family
    assert {path.name for path in figures.iterdir()} == {f"{name}.png" for name in names}
    for name in ("table1", "table2", "table3", "table4", "edits", "directions", "appearance"):
        assert f"| {family} |" in (study.folder / f"reports/tables/{name}.md").read_text(), name


def test_first_results_are_those_of_the_whole_run(study):
    family = study.generator.family
    preview, results = (
        study.folder / "data/preview" / family,
        study.folder / "data/results" / family,
    )
    assert read_json(preview / "lse.json") == read_json(results / "scores/lse.json")
    assert (preview / "masks.png").stat().st_size > 10_000
    columns = ["study", "masks from", "miou_per_image", "miou_dataset", "miou_dataset vs judge"]
    first, whole = (
        pd.read_csv(path)[columns].set_index("masks from").loc[["LSE", "teacher"]]
        for path in (preview / "table.csv", study.folder / "reports/tables/table1.csv")
    )
    pd.testing.assert_frame_equal(first, whole)
