"""The whole run: `dvc repro`, with as many stages side by side as there are cores."""

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable

from stages import run
from stages.check_params import check_params

# The longest stage that nothing but tables and figures waits for, and the one before it: they begin
# as soon as they can, or the run would end with it alone, on one core. More stages than these would
# only put off the first results.
LONG = {"fit_fewshot", "measure_editing"}
ADVICE = (
    "To track the changes",
    "\tgit add",
    "To enable auto staging",
    "\tdvc config",
    "Use `dvc push`",
)


def reproduce() -> None:
    """Run what is out of date, as `dvc repro` does, but several stages at once.

    Two stages of one thread each take less time than one after the other on two threads. A stage
    starts when all that it needs is done; where one fails, what does not need it goes on.
    Ctrl-C stops all of them; what is done stays done.
    """
    check_params()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        needs = stages_to_run()
        if failed := side_by_side(needs, cores):
            print(f"failed: {', '.join(failed)}; what needs them was left out", file=sys.stderr)
            sys.exit(1)
    sys.exit(subprocess.run(["dvc", "repro"]).returncode)


def stages_to_run() -> dict[str, set[str]]:
    """What is out of date, or needs what is: {stage: those of them that it needs}.

    In the order of dvc.yaml, so that first results come first.
    """
    import logging

    import networkx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)  # it warns of the stages that are frozen
    try:
        with Repo() as repo:
            graph = repo.index.graph  # edges lead to what a stage needs
            changed = repo.status()
            stale = {stage for stage in graph if stage.addressing in changed}
            stale |= {above for stage in stale for above in networkx.ancestors(graph, stage)}
            todo = [stage for stage in repo.index.stages if stage in stale and not stage.frozen]
            return {
                stage.addressing: {need.addressing for need in graph.successors(stage)}
                & {other.addressing for other in todo}
                for stage in todo
            }
    except DvcException as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def side_by_side(needs: dict[str, set[str]], cores: list[int]) -> list[str]:
    """Run every stage once what it needs is done, at most one a core; returns what failed."""
    waiting, running, readers, failed = dict(needs), {}, [], []
    started = time.monotonic()
    try:
        while waiting or running:
            for stage in [name for name, process in running.items() if _ended(process)]:
                process = running.pop(stage)
                if process.returncode:
                    failed.append(stage)
                now, done = time.monotonic(), len(needs) - len(waiting) - len(running)
                print(
                    f"[{stage}] {'failed' if process.returncode else 'done'} after "
                    f"{now - process.began:.0f} s ({process.cpu_seconds:.0f} CPU s); "
                    f"{done} of {len(needs)} stages in {(now - started) / 60:.0f} min",
                    flush=True,
                )
            undone = {*waiting, *running, *failed}
            ready = [name for name, wanted in waiting.items() if not wanted & undone]
            ready = taking_turns(ready, running)
            if not ready and not running:
                return failed
            free = sorted({*cores} - {c for p in running.values() for c in p.cores})
            for i, stage in enumerate(ready[: len(free)]):
                del waiting[stage]
                running[stage] = _start(stage, free[i :: min(len(free), len(ready))])
                readers.append(threading.Thread(target=_relay, args=(stage, running[stage].stdout)))
                readers[-1].start()
            time.sleep(0.1)
    except KeyboardInterrupt:  # the terminal has sent it to the stages as well
        for process in running.values():
            process.wait()
        sys.exit(130)
    finally:
        for reader in readers:
            reader.join()
    return failed


def taking_turns(ready: Iterable[str], running: Iterable[str]) -> list[str]:
    """What is ready to run: the study with the fewest stages first, of it LONG ones, then in order.

    So the fast study has its first results early, and the slow one does not wait for its last.
    """
    left = list(ready)
    names = {stage.partition("@")[2] for stage in (*left, *running)}

    def study(stage: str) -> str:  # of `fit@ffhq-lse` ffhq, if there is a `judge@ffhq` as well
        own = stage.partition("@")[2]
        return min(name for name in names if own == name or own.startswith(f"{name}-"))

    busy, order = Counter(map(study, running)), []
    while left:
        order.append(min(left, key=lambda s: (busy[study(s)], s.partition("@")[0] not in LONG)))
        left.remove(order[-1])
        busy[study(order[-1])] += 1
    return order


def _start(stage: str, cores: list[int]) -> subprocess.Popen:
    words = ["dvc", "--wait-for-lock", "repro", "--single-item", stage]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    os.sched_setaffinity(process.pid, cores)
    process.cores, process.began = cores, time.monotonic()
    return process


def _ended(process: subprocess.Popen) -> bool:
    """Whether a stage has ended; if so, its CPU time is known, that of its own processes too."""
    pid, status, usage = os.wait4(process.pid, os.WNOHANG)
    if pid:
        process.returncode = os.waitstatus_to_exitcode(status)
        process.cpu_seconds = usage.ru_utime + usage.ru_stime
    return pid != 0


def _relay(stage: str, lines: Iterable[str]) -> None:
    """Print what a stage says, each line after its name, without DVC's advice after every stage."""
    for line in lines:
        if line.strip() and not line.startswith(ADVICE):
            print(f"[{stage}] {line}", end="", flush=True)


if __name__ == "__main__":
    run(reproduce)
