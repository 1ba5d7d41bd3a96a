import ast
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.runtime.durations import Durations
from pipeline.runtime.schedule import Schedule, expected, fastest
from stages import reproduce

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


RECORD = (sys.executable, "-m", "stages.reproduce", "--record", "reports/durations.json")


@pytest.fixture
def run(tmp_path):
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / "work.py").write_text(WORK)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}
    env.pop("DVC_ROOT", None)

    def run(*words):
        options = run.options | {"capture_output": True, "text": True, "timeout": 400}
        return subprocess.run(words, check=False, **options)

    run.options = {"cwd": tmp_path, "env": env, "start_new_session": True}
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


@more_than_one_core
def test_only_what_is_out_of_date_is_looked_at(run, tmp_path):
    assert run("dvc", "repro").returncode == 0
    (tmp_path / "fitted_a").unlink()
    code = "from stages.reproduce import stages_to_run; print(stages_to_run().needs)"
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


@more_than_one_core
def test_a_run_says_first_what_it_will_do_and_then_how_long_it_will_take(run, tmp_path):
    out = run(sys.executable, "-m", "stages.reproduce").stdout.splitlines()
    assert out[0] == "6 stages to run (a 4, shared 2); no downloads"
    assert out[1] == "time and disk unknown: reports/durations.json has no earlier run"
    ended = [line.partition("; ")[2] for line in out if " done after " in line]
    assert all(re.search(r" min, (about \d+|less than 1) min left$", e) for e in ended[:5]), ended
    assert re.fullmatch(r"6 of 6 stages in \d min", ended[5])
    assert not (tmp_path / "reports").exists(), "durations are recorded on request only"


@more_than_one_core
def test_what_ran_is_recorded_on_request(run, tmp_path):
    path = tmp_path / "reports" / "durations.json"
    half = {"cores": 8, "probe_rate": 1.0, "bfloat16_units": False}
    Durations(half, {"fit_extractor@gone": 1e6, "make_tables": 1e6}).write(path)
    done = run(*RECORD)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.match(r"about \d+ min on \d+ cores \([\d,]+ CPU s; ", done.stdout.splitlines()[1])
    found = json.loads(path.read_text())
    assert found["machine"]["probe_rate"] > 1 and found["machine"]["cores"] > 1
    names = {
        f"{stage}@{s}" for stage in ("fetch_checkpoint", "fit_extractor") for s in ("a", "a-b")
    }
    ran = names | {"trace_imports", "make_tables"}
    assert found["stages"].keys() == ran | {"fit_extractor@gone"}
    assert all(0 < found["stages"][stage] < 60 for stage in ran)
    assert found["disk_mb"].keys() == ran
    kept = path.read_bytes()
    again = run(*RECORD)
    assert "to run" not in again.stdout and path.read_bytes() == kept, "nothing ran"


@more_than_one_core
def test_ctrl_c_ends_the_stages_and_what_is_done_stays(run, tmp_path):
    assert run("dvc", "repro", "trace_imports").returncode == 0
    words = [sys.executable, "-m", "stages.reproduce"]
    options = {"stdout": subprocess.PIPE, "text": True, **run.options}
    options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # nohup ignores it
    with subprocess.Popen(words, **options) as process:
        while "work.py" not in process.stdout.readline():
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert (tmp_path / "code").exists() and not (tmp_path / "table").exists()


def test_one_core_times_no_stages_and_says_so(run):
    done = run("taskset", "-c", str(min(os.sched_getaffinity(0))), *RECORD)
    assert done.returncode == 2
    assert done.stderr == (
        "error: got --record on one core; wanted two cores or more, where each stage is timed; "
        "leave it out\n"
    )


FETCH = "python -m stages.fetch_checkpoint x --package {} --version 1.0 --sha256 {}"
MACHINE = {"cores": 2, "probe_rate": 100.0, "bfloat16_units": True}
KNOWN = Durations(
    MACHINE,
    {"trace": 6, "fetch@a": 126, "fetch@b": 666, "preview_study@a": 6, "tables": 6},
    {"fetch@a": 700, "fetch@b": 1500, "tables": 40},
    {"one==1.0": 13.3, "two==1.0": 37.6},
)
NEEDS = {
    "trace": set(),
    "fetch@a": {"trace"},
    "fetch@b": {"trace"},
    "preview_study@a": {"fetch@a"},
    "tables": {"fetch@a", "fetch@b"},
}
COMMANDS = {
    f"fetch@{study}": FETCH.format(name, hashlib.sha256(name.encode()).hexdigest())
    for study, name in (("a", "one"), ("b", "two"))
}
PLANNED = reproduce.Work(NEEDS, COMMANDS, {*NEEDS})


def said(work: reproduce.Work = PLANNED, known: Durations = KNOWN, **machine) -> list[str]:
    """The statement of a run on two cores."""
    seconds = expected(work.needs, known.on(MACHINE | machine))
    schedule = Schedule(work.needs, seconds, range(2), fastest("preview_study", seconds))
    return reproduce.statement(work, schedule, known, MACHINE | machine)


def test_the_statement_names_stages_downloads_disk_time_and_first_results():
    assert said() == [
        "5 stages to run (a 2, b 1, shared 2); 2 downloads, 51 MB; about 2.2 GB in .store and data",
        "about 7 min on 2 cores (810 CPU s; this machine runs the probe at 1.00 of the "
        "reference); first results (a table and figure) after about 1 min",
    ]


def test_a_wheel_in_the_store_is_not_fetched(store_root):
    (store_root / "wheels").mkdir(parents=True)
    (store_root / "wheels" / "any.whl").write_bytes(b"one")
    assert "; 1 download, 38 MB; " in said()[0]
    (store_root / "wheels" / "other.whl").write_bytes(b"two")
    assert "; no downloads; " in said()[0]


def test_a_wheel_of_unknown_size_is_said():
    commands = COMMANDS | {"fetch@b": FETCH.format("three", "0" * 64)}
    assert "; 2 downloads, at least 13 MB; " in said(replace(PLANNED, commands=commands))[0]


def test_stages_that_run_only_if_others_change_something_are_a_limit():
    assert said(replace(PLANNED, certain={"trace"}))[0].startswith("5 stages to run at most (")


def test_a_machine_at_half_the_rate_takes_twice_as_long():
    time_needed = said(probe_rate=50.0)[1]
    assert "(1,620 CPU s; this machine runs the probe at 0.50 of the reference)" in time_needed
    assert len(said(probe_rate=50.0)) == 2


def test_stages_without_a_duration_are_counted():
    known = replace(KNOWN, stages={**KNOWN.stages, "other": 6})
    del known.stages["tables"]
    assert said(known=known)[2].startswith("1 stages have no recorded duration")


def test_missing_bfloat16_units_are_said():
    assert "this machine has no bfloat16 units" in said(bfloat16_units=False)[2]


def test_what_has_no_first_results_says_nothing_of_them():
    needs = {stage: needed for stage, needed in NEEDS.items() if stage != "preview_study@a"}
    assert "first results" not in said(reproduce.Work(needs, {}, {*needs}))[1]
