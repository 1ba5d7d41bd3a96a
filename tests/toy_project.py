"""A copy of the project with one small study, the published 64 px generator and our teachers."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

REPO = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
COPIED = ("pipeline", "stages", "checkpoints", "edits", "labels", "annotations", "dvc.yaml")
COPIED += (".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore", ".dvc/plots")
FIRST = ".dvc/tmp/first.log"  # what the first run said; git ignores it

STUDY = "digiface"
EXTRACTORS = ("lse", "nse1")
FITS = {f"fit_extractor@{STUDY}-{e}" for e in EXTRACTORS}
EVALUATIONS = {f"{stage}@{STUDY}" for stage in ("evaluate_extractor", "preview_study")}
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
REPORTS = {"make_tables", f"make_figures@{STUDY}", f"summarize_study@{STUDY}"}
REFITTED = (
    FITS | EVALUATIONS | LISTS | SELECTION | COMPARED | FEWSHOT | CONTROLLED | STYLED | REPORTS
)
REFITTED |= DIRECTIONS


class Project:
    """A project in `folder`, and its dvc."""

    def __init__(self, folder: Path, cores: set[int]):
        self.folder, self.cores = folder, cores
        self.env = os.environ | {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": "",
            "DVC_NO_ANALYTICS": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        self.env.pop("PIPELINE_STORE", None)
        self.env.pop("DVC_ROOT", None)

    def run(self, *words: str, check: bool = True) -> str:
        """stdout and stderr of a command in the project, on its cores."""
        own = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.cores)  # what is started inherits it
        try:
            done = subprocess.run(
                words, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False
            )
        finally:
            os.sched_setaffinity(0, own)
        assert not check or done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def ran(self, output: str) -> set[str]:
        """Names of the stages that a `dvc repro` or `dvc exp run` really ran."""
        return set(self.runs(output))

    def runs(self, output: str) -> list[str]:
        """The same in order; of several experiments, a name for each time."""
        return re.findall(r"Running stage '([^']+)'", output)

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

    @property
    def first(self) -> str:
        """What the first `make repro` said."""
        return (self.folder / FIRST).read_text()

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", message)


def copy_of(project: Path, folder: Path, cores: set[int]) -> Project:
    """The same project elsewhere: hard links between cache and workspace stay what they are."""
    subprocess.run(["cp", "-a", project, folder], check=True)
    return Project(folder, cores)


def make(folder: Path) -> None:
    """Write the project and run all of its pipeline once."""
    project = Project(folder, os.sched_getaffinity(0))  # all cores: stages run side by side
    for name in COPIED:
        source, target = REPO / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, target)
    for wheel in (REPO / ".store" / "wheels").glob("*.whl"):
        (folder / ".store" / "wheels").mkdir(parents=True, exist_ok=True)
        shutil.copy(wheel, folder / ".store" / "wheels")
    params = small(yaml.safe_load((REPO / "params.yaml").read_text()))
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    lock = yaml.safe_load((REPO / "dvc.lock").read_text())
    lock["stages"] = {name: stage for name, stage in lock["stages"].items() if kept(name, params)}
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
    project.run("git", "init", "-q")
    project.run("git", "config", "user.email", "test@example.org")
    project.run("git", "config", "user.name", "test")
    project.commit("start")
    said = project.run(sys.executable, "-m", "stages.reproduce")  # make repro
    project.commit("study")
    (folder / FIRST).write_text(said)


def kept(name: str, params: dict) -> bool:
    """Whether dvc.lock's entry is of a stage of the small project.

    DVC reads and writes the whole file after each stage, with its comments: of all entries that
    takes as long as many a small stage.
    """
    part = name.partition("@")[2]
    names = {"", *params["teachers"], STUDY, *(f"{STUDY}-{e}" for e in EXTRACTORS)}
    return part in names


def small(params: dict) -> dict:
    """The project's parameters, of one study at a small size."""
    params["studies"] = {STUDY: params["studies"][STUDY]}
    sizes = {"train": 32, "validation": 8, "test": 16, "pool": 8}
    params["studies"]["digiface"]["sample"] |= sizes
    params["studies"]["digiface"]["features"]["samples_per_shard"] = 16
    params["extractors"] = {"names": list(EXTRACTORS)}
    params["fit_rule"] |= {"epochs": 1, "l2": [0.01, 0.001], "nse2_width": 8}
    params["fit_extractor"] |= {"iterations": 6, "steps": 10, "looks": 2}
    params["selection_fit"] |= {"iterations": 6, "steps": 8, "looks": 2}
    params["fit_appearance"] |= {"samples": 8, "pixels": 30}
    params["measure_controls"] |= {"controls": ["fourier_rgb"], "iterations": 6, "l2": [0.01]}
    params["studies"]["digiface"]["geometry"] |= {"iterations": 6, "fair_images": 8}
    params["measure_geometry"] |= {"greedy_taps": 2}
    params["shots"], params["compute"] = 4, "float32"  # the same numbers on every processor
    params["fewshot"] |= {"repeats": 2}
    params["fewshot_rule"] |= {"iterations": 10, "pixels_per_sample": 64}
    params["sweep_fewshot"] |= {"sweep_shots": [1, 2], "selections": ["random", "uncertain"]}
    params["sweep_fewshot"] |= {"stroke_budgets": [64], "stroke_images": [2]}
    params["studies"]["digiface"]["scs"] |= {"targets": 2, "samples": 2, "scs_shots": [1]}
    params["studies"]["digiface"]["scs"] |= {"refits": 2, "rate_targets": 1}
    params["measure_sampling"] |= {"candidates": 2, "steps": 2, "rates": [0.1]}
    # Both apply to the first two test samples, so the second takes the first one's vectors.
    params["studies"]["digiface"]["edits"] |= {"kinds": ["add_hat", "grow_hair"], "samples": 2}
    params["studies"]["digiface"]["edits"] |= {"rows": 16}
    params["measure_editing"] |= {"steps": 2}
    params["studies"]["digiface"]["directions"] |= {"random": 6, "samples": 3, "color_samples": 2}
    params["studies"]["digiface"]["directions"] |= {"boundary_samples": 40}
    params["find_directions"] |= {"top": 4, "spread_samples": 200, "boundary_share": 0.1}
    params["make_figures"] |= {"samples": 3}
    return params
