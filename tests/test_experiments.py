"""What a user of DVC sees of two revisions: the plots of dvc.yaml, and the table of experiments."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.reporting.experiments import changed_table

REPO = Path(__file__).parents[1]
STUDY = "digiface"

# Writes what the pipeline's stages do, at a glance: files that differ with `shots`.
MAKE = """
import csv, json, sys
from pathlib import Path
from PIL import Image

shots = int(sys.argv[1])
for folder in ("data/plots", "reports/figures/digiface", "reports/metrics"):
    Path(folder).mkdir(parents=True, exist_ok=True)
for name in ("masks", "confusion"):
    Image.new("RGB", (8, 8), (9 * shots, 0, 0)).save(f"reports/figures/digiface/{name}.png")
with open("data/plots/digiface_confusion.csv", "w") as file:
    csv.writer(file).writerows([("actual", "predicted"), ("hair", "hair"), ("bg", "hair")])
head = "shots", "repeat", "selection", "candidates", "annotation", "miou_per_image"
full = [(n, r, "random", "pool", "full", shots + n + r) for n in (1, 4) for r in (0, 1)]
half = [(n, 0, "diverse", "half", "full", shots) for n in (1, 4)]
with open("data/plots/digiface_fewshot.csv", "w") as file:
    csv.writer(file).writerows([head, *full, *half, (1, 0, "random", "pool", "strokes", 3)])
for study, gain in (("digiface", 1.5), ("ffhq", 0)):
    values = {"fewshot_miou_per_image": 20 + gain * shots, "lse_miou_per_image": 40}
    Path(f"reports/metrics/{study}.json").write_text(json.dumps(values))
"""


def plots() -> dict:
    """The plots of every stage of dvc.yaml, of one study."""
    text = (REPO / "dvc.yaml").read_text().replace("${key}", STUDY)
    stages = [stage.get("do", stage) for stage in yaml.safe_load(text)["stages"].values()]
    return {
        path: options for s in stages for p in s.get("plots", []) for path, options in p.items()
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A commit and an experiment of other `shots`."""
    folder = tmp_path_factory.mktemp("experiments")
    (folder / "make.py").write_text(MAKE)
    (folder / "params.yaml").write_text("shots: 1\nsame: 2\n")
    stage = {"cmd": "python make.py ${shots} ${same}", "deps": ["make.py"]}
    stage["plots"] = [{path: options} for path, options in plots().items()]
    names = [f"reports/metrics/{study}.json" for study in (STUDY, "ffhq")]
    stage["metrics"] = [{name: {"cache": False}} for name in names]
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"make": stage}}))

    def run(*words: str) -> str:
        env = os.environ | {"DVC_NO_ANALYTICS": "1", "GIT_CONFIG_GLOBAL": os.devnull}
        env |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"}
        env |= {"PYTHONPATH": str(REPO)}
        done = subprocess.run(
            words, cwd=folder, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("git", "init", "-q", "-b", "main")
    run("git", "config", "user.email", "test@example.org")
    run("git", "config", "user.name", "test")
    run("dvc", "init", "-q")
    shutil.copytree(REPO / ".dvc" / "plots", folder / ".dvc" / "plots", dirs_exist_ok=True)
    run("dvc", "repro", "-q")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "one shot")
    run("dvc", "exp", "run", "-q", "-n", "two-shots", "-S", "shots=2")
    return folder, run


def test_plots_of_two_revisions_hold_curves_confusion_and_masks(project):
    folder, run = project
    run("dvc", "plots", "diff", "HEAD", "workspace")
    page = (folder / "dvc_plots" / "index.html").read_text()
    pattern = r'<div id = "(\w+)">\s*<script[^>]*>\s*var spec = (\{.*?\});\s*vegaEmbed'
    specs = {name: json.loads(spec) for name, spec in re.findall(pattern, page, re.DOTALL)}
    assert set(specs) == {f"data_plots_{STUDY}_{name}_csv" for name in ("confusion", "fewshot")}
    for spec in specs.values():
        assert {row["rev"] for row in spec["data"]["values"]} == {"HEAD", "workspace"}
        assert "<DVC_METRIC" not in json.dumps(spec)
    curve, _ = specs[f"data_plots_{STUDY}_fewshot_csv"]["spec"]["layer"]
    assert curve["encoding"]["y"]["aggregate"] == "mean", "repeats are no zigzag"
    shown = set(re.findall(r'<img src="static/([^"]+)"', page))
    names = [f"{rev}_reports_figures_{STUDY}" for rev in ("HEAD", "workspace")]
    assert shown == {f"{name}_{figure}.png" for name in names for figure in ("masks", "confusion")}


def test_experiments_show_what_changed_alone(project):
    _, run = project
    head, *rows = run(sys.executable, "-m", "stages.show_experiments").splitlines()
    assert head.split() == ["workspace", "main", "two-shots"]
    assert [row.split() for row in rows] == [
        ["shots", "2", "1", "2"],
        [STUDY, "fewshot_miou_per_image", "23.0", "21.5", "23.0"],
    ], "not what is the same in all: `same`, the LSE, the other study"


def revision(name, shots, metric=None, **more):
    metrics = {"reports/metrics/ffhq.json": {"data": {"lse": metric}}} if metric else {}
    params = {"params.yaml": {"data": {"fewshot": {"shots": shots}}}}
    return {
        "name": name,
        "rev": "0123456789abc",
        "data": {"params": params, "metrics": metrics},
    } | more


def test_many_experiments_go_on_in_blocks_and_say_when_they_are_not_done():
    experiments = [
        {"name": f"quick-fox-{i}", "revs": [revision(None, i, 10 + i)], "executor": None}
        for i in range(9)
    ]
    experiments[8] |= {"revs": [revision(None, 8)], "executor": {"state": "queued"}}
    shown = [revision("main", [16] * 20, 50, experiments=experiments)]
    text = changed_table(shown, 60)
    assert max(map(len, text.splitlines())) <= 60
    blocks = [block.splitlines() for block in text.split("\n\n")]
    assert len(blocks) > 2 and all(len(block) == 4 for block in blocks)
    assert [name for block in blocks for name in block[0].split()][1:] == [
        f"quick-fox-{i}" for i in range(9)
    ]
    assert "16,16,16,16,16,16,16,16…" in blocks[0][1], "a long list is cut"
    assert [row.split()[-1] for row in blocks[-1]][2:] == ["–", "queued"]
    same = [revision("a", 1, 2, experiments=None), revision("b", 1, 2, experiments=None)]
    assert "2 revisions, which do not differ" in changed_table(same, 60)
