"""Whatever dies, nothing is left behind: workers and stages end with their run."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WITHIN = 8  # seconds: the promise is 2, on an idle machine

# Two tasks that note their processes and go on for a minute, in a long operation of no bytecode.
STAGE = """
import os, pathlib, sys, time
from pipeline.runtime import workers
from stages import execute

def note(name):
    pathlib.Path(name + ".partial").write_text(str(os.getpid()))
    os.replace(name + ".partial", name)

def task(i):
    note(f"worker{i}.pid")
    sum(range(10**11))

def app():
    note("stage.pid")
    if "alone" in sys.argv:
        sum(range(10**11))
    list(workers.run(task, [0, 1], "tasks", 2))

if __name__ == "__main__":
    execute(app)
"""
PIPELINE = "stages:\n  only:\n    cmd: {python} stage.py\n    outs: [never]\n"


@pytest.fixture
def start(tmp_path):
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / "dvc.yaml").write_text(PIPELINE.format(python=sys.executable))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}
    env.pop("DVC_ROOT", None)
    options = {"cwd": tmp_path, "env": env, "start_new_session": True}
    options |= {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(["dvc", "init", "-q", "--no-scm"], check=True, **options)
    started = []

    def start(*words, **more):
        started.append(subprocess.Popen(words, **options, **more))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
    for file in tmp_path.glob("*.pid"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(file.read_text()), signal.SIGKILL)


def pids(folder, *names):
    """The noted processes, as soon as all are there."""
    files, limit = [folder / f"{name}.pid" for name in names], time.monotonic() + 60
    while not all(file.exists() for file in files):
        assert time.monotonic() < limit, "nothing started"
        time.sleep(0.05)
    return [int(file.read_text()) for file in files]


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def all_end(processes):
    limit = time.monotonic() + WITHIN
    while left := [pid for pid in processes if alive(pid)]:
        assert time.monotonic() < limit, f"left behind: {left}"
        time.sleep(0.05)


EVERYTHING = "stage", "worker0", "worker1"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_stage(start, tmp_path, number):
    process = start(sys.executable, "stage.py")
    processes = pids(tmp_path, *EVERYTHING)
    process.send_signal(number)
    assert process.wait(WITHIN) == -number
    all_end(processes)


def test_a_stage_in_the_background_stops_in_the_middle_of_an_operation(start, tmp_path):
    ignored = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)}  # as `sh &` does
    process = start(sys.executable, "stage.py", "alone", **ignored)
    pids(tmp_path, "stage")
    process.send_signal(signal.SIGINT)
    assert process.wait(WITHIN) == -signal.SIGINT


@pytest.mark.parametrize("words", [("dvc", "repro"), (sys.executable, "-m", "stages.reproduce")])
def test_a_stage_ends_with_the_run_that_started_it(start, tmp_path, words):
    process = start(*words)
    processes = pids(tmp_path, *EVERYTHING)
    process.kill()
    all_end(processes)


def test_an_interrupted_run_ends_its_stages(start, tmp_path):
    process = start(sys.executable, "-m", "stages.reproduce")
    processes = pids(tmp_path, *EVERYTHING)
    process.send_signal(signal.SIGINT)
    assert process.wait(WITHIN) == 130
    all_end(processes)
