"""The whole run: `dvc repro` of every study side by side, each on its share of the cores."""

import os
import re
import subprocess
import sys
import threading
import time

from stages import run


def reproduce() -> None:
    """Run what is out of date, as `dvc repro` does, but the stages of different studies at once.

    Two stages of one thread each take less time than one after the other on two threads. A lane
    that ends leaves its cores to the others. Ctrl-C stops all of them; what is done stays done.
    """
    names = ["dvc", "stage", "list", "--name-only"]
    listed = subprocess.run(names, stdout=subprocess.PIPE, text=True)
    if listed.returncode:
        sys.exit(listed.returncode)
    cores, waiting = sorted(os.sched_getaffinity(0)), studies(listed.stdout.split())
    if min(len(cores), len(waiting)) > 1:
        status = _dvc("repro", "trace_imports").wait() or side_by_side(waiting, cores)
        if status:
            sys.exit(status)
    sys.exit(_dvc("repro").wait())


def studies(stages: list[str]) -> dict[str, list[str]]:
    """The stages of each study, in the order given: study names follow `fetch_checkpoint@`."""
    names = [name.partition("@")[2] for name in stages if name.startswith("fetch_checkpoint@")]
    found = {name: [] for name in names}
    for stage in stages:
        cell = stage.partition("@")[2]
        owners = [name for name in names if re.match(rf"{re.escape(name)}(-|$)", cell)]
        if owners:
            found[max(owners, key=len)].append(stage)
    return found


def side_by_side(waiting: dict[str, list[str]], cores: list[int]) -> int:
    """Run a lane a study, at most one a core; returns the first failure's exit status, or 0."""
    queue, lanes, readers, failed = list(waiting), {}, [], 0
    try:
        while queue or lanes:
            while queue and len(lanes) < len(cores):
                study = queue.pop(0)
                # One by one: a check of what all lanes depend on would lock it against the others.
                lanes[study] = _dvc("repro", "--single-item", *waiting[study], pipe=True)
                readers.append(threading.Thread(target=_relay, args=(study, lanes[study].stdout)))
                readers[-1].start()
                share(list(lanes.values()), cores)
            time.sleep(0.2)
            for study in [name for name, lane in lanes.items() if lane.poll() is not None]:
                failed = lanes.pop(study).returncode or failed
                share(list(lanes.values()), cores)
    except KeyboardInterrupt:  # the terminal has sent it to the lanes and their stages as well
        for lane in lanes.values():
            lane.wait()
        failed = 130
    for reader in readers:
        reader.join()
    return failed


def share(lanes: list[subprocess.Popen], cores: list[int]) -> None:
    """Split the cores evenly; the stages that a lane starts from now on keep to its part."""
    for i, lane in enumerate(lanes):
        if lane.poll() is None:
            os.sched_setaffinity(lane.pid, set(cores[i :: len(lanes)]))


def _dvc(*words: str, pipe: bool = False) -> subprocess.Popen:
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} if pipe else {}
    return subprocess.Popen(["dvc", "--wait-for-lock", *words], **output)


def _relay(study: str, lines) -> None:
    """Print what a lane says, each line after the study's name."""
    for line in lines:
        if line.strip():
            print(f"[{study}] {line}", end="", flush=True)


if __name__ == "__main__":
    run(reproduce)
