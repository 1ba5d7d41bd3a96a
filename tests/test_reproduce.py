import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stages.reproduce import taking_turns

ROOT = Path(__file__).parents[1]

# Two studies whose stages note when they ran and on which cores.
PIPELINE = """
stages:
  trace_imports:
    cmd: echo 1 > code
    outs: [code]
  fetch_checkpoint:
    foreach: [a, a-b]
    do:
      cmd: python work.py fetched_${item}
      deps: [code]
      outs: ["fetched_${item}"]
  fit_extractor:
    foreach: [a, a-b]
    do:
      cmd: python work.py fitted_${item}
      deps: [code, "fetched_${item}"]
      outs: ["fitted_${item}"]
  make_tables:
    cmd: cat fitted_a fitted_a-b > table
    deps: [fitted_a, fitted_a-b]
    outs: [table]
"""
WORK = """
import os, pathlib, sys, time
if pathlib.Path("broken_" + sys.argv[1]).exists():
    sys.exit("out of order")
start = time.time()
time.sleep(3)
line = f"{start} {time.time()} {','.join(map(str, sorted(os.sched_getaffinity(0))))}"
pathlib.Path(sys.argv[1]).write_text(line + chr(10))
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / "work.py").write_text(WORK)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}
    env.pop("DVC_ROOT", None)

    def run(*words):
        return subprocess.run(
            words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False
        )

    assert run("dvc", "init", "-q", "--no-scm").returncode == 0
    return run


more_than_one_core = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="on one core it is plain dvc repro"
)


@more_than_one_core
def test_stages_run_side_by_side_and_what_joins_them_last(run, tmp_path):
    done = run(sys.executable, "-m", "stages.reproduce")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [(tmp_path / f"fetched_{s}").read_text().split() for s in ("a", "a-b")]
    (start_a, end_a, cores_a), (start_b, end_b, cores_b) = rows
    assert float(start_a) < float(end_b) and float(start_b) < float(end_a)
    assert not set(cores_a.split(",")) & set(cores_b.split(","))
    assert len((tmp_path / "table").read_text().splitlines()) == 2
    assert "[fit_extractor@a-b] Running stage 'fit_extractor@a-b'" in done.stdout
    assert re.search(r"\[make_tables\] done after \d s \(\d CPU s\); 6 of 6 stages", done.stdout)
    again = run(sys.executable, "-m", "stages.reproduce")
    assert again.returncode == 0 and "Running stage" not in again.stdout


@pytest.mark.parametrize(
    ("ready", "running", "order"),
    [
        ("fit@a fit@b judge@a judge@b", "", "fit@a fit@b judge@a judge@b"),  # as they come
        ("fit@a-lse fit@a-nse fit@b-lse", "judge@a", "fit@b-lse fit@a-lse fit@a-nse"),
        ("fit@a-lse fit@a-nse judge@b", "judge@a judge@c", "judge@b fit@a-lse fit@a-nse"),
        ("trace fit@a", "", "trace fit@a"),
        ("fit@a measure_editing@a fit@b", "", "measure_editing@a fit@b fit@a"),
    ],
)
def test_studies_take_turns(ready, running, order):
    assert taking_turns(ready.split(), running.split()) == order.split()


@more_than_one_core
def test_only_what_is_out_of_date_is_looked_at(run, tmp_path):
    assert run("dvc", "repro").returncode == 0
    (tmp_path / "fitted_a").unlink()
    code = "from stages.reproduce import stages_to_run; print(stages_to_run())"
    done = run(sys.executable, "-c", code)
    assert ast.literal_eval(done.stdout) == {
        "fit_extractor@a": set(),
        "make_tables": {"fit_extractor@a"},
    }


def test_a_stage_that_fails_leaves_the_others_done(run, tmp_path):
    (tmp_path / "broken_fetched_a").touch()
    done = run(sys.executable, "-m", "stages.reproduce")
    assert done.returncode != 0 and "out of order" in done.stdout + done.stderr
    assert not (tmp_path / "table").exists()
    if len(os.sched_getaffinity(0)) > 1:
        assert (tmp_path / "fitted_a-b").exists()
        assert "failed: fetch_checkpoint@a; what needs" in done.stderr
    (tmp_path / "broken_fetched_a").unlink()
    assert run(sys.executable, "-m", "stages.reproduce").returncode == 0
    assert len((tmp_path / "table").read_text().splitlines()) == 2
