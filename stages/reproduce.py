"""The whole run: `dvc repro`, with as many stages side by side as there are cores."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pipeline.runtime.durations import Durations
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json, sha256, store_root
from pipeline.runtime.lifelines import RUN
from pipeline.runtime.schedule import Schedule, by_study, expected, fastest
from stages import run
from stages.check_params import check_params

DURATIONS = Path("reports/durations.json")  # of an earlier run; git tracks it
FIRST = "preview_study"  # the stage that makes a study's first results
ADVICE = (
    "To track the changes",
    "\tgit add",
    "To enable auto staging",
    "\tdvc config",
    "Use `dvc push`",
)


@dataclass(frozen=True)
class Work:
    """What is out of date, or needs what is, in the order of dvc.yaml."""

    needs: dict[str, set[str]]  # {stage: those of the stages here that it needs}
    commands: dict[str, str]
    certain: set[str]  # out of date themselves; the others run if what they need changes


def reproduce(
    *,
    record: Path | None = None,  # file of durations to renew by the stages that run; none: no file
) -> None:
    """Run what is out of date, as `dvc repro` does, but several stages at once.

    Says first what it will do. Two stages of one thread each take less time than one after the
    other on two threads. A stage starts when all that it needs is done; where one fails, what does
    not need it goes on. Ctrl-C stops all of them; what is done stays done.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ[RUN] = str(os.getpid())
    check_params()
    cores = sorted(os.sched_getaffinity(0))
    if record and len(cores) == 1:
        raise InputError(
            "--record on one core", "two cores or more, where each stage is timed", "leave it out"
        )
    if (work := stages_to_run()).needs:
        known = Durations.read(DURATIONS)
        machine = {"cores": len(cores)} | (probe() if known.stages or record else {})
        seconds = expected(work.needs, known.on(machine))
        schedule = Schedule(work.needs, seconds, cores, fastest(FIRST, seconds))
        print("\n".join(statement(work, schedule, known, machine)), flush=True)
        took = side_by_side(schedule) if len(cores) > 1 else {}
        if schedule.failed:
            failed = ", ".join(schedule.failed)
            print(f"failed: {failed}; what needs them was left out", file=sys.stderr)
            sys.exit(1)
        if record:
            Durations.read(record).merged(measured(work, machine, took)).write(record)
    sys.stdout.flush()
    os.execvp("dvc", ["dvc", "repro"])


def stages_to_run() -> Work:
    """What is out of date, or needs what is; exit status 2 if DVC cannot tell."""
    import logging

    import networkx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)  # it warns of the stages that are frozen
    try:
        with Repo() as repo:
            graph = repo.index.graph  # edges lead to what a stage needs
            status = repo.status()
            stale = {stage for stage in graph if stage.addressing in status}
            stale |= {above for stage in stale for above in networkx.ancestors(graph, stage)}
            todo = [stage for stage in repo.index.stages if stage in stale and not stage.frozen]
            names = {stage.addressing for stage in todo}
            return Work(
                {s.addressing: names & {n.addressing for n in graph.successors(s)} for s in todo},
                {s.addressing: s.cmd if isinstance(s.cmd, str) else " ".join(s.cmd) for s in todo},
                names & {*status},
            )
    except DvcException as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def probe() -> dict:
    """How fast a core of this machine is, as `pipeline.runtime.probe` measures in a second."""
    words = [sys.executable, "-m", "pipeline.runtime.probe"]
    return json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout)


def statement(
    work: Work, schedule: Schedule, known: Durations, machine: Mapping[str, float]
) -> list[str]:
    """What a run will do, in lines: stages, downloads, disk, time and first results."""
    studies = Counter(by_study(work.needs).values())
    counts = [f"{name} {num}" for name, num in studies.most_common() if name]
    counts += [f"shared {studies['']}"] if "" in studies else []
    sure = "" if work.certain >= {*work.needs} else " at most"
    parts = [f"{len(work.needs)} stages to run{sure} ({', '.join(counts)})", downloads(work, known)]
    if not known.stages:
        return ["; ".join(parts), f"time and disk unknown: {DURATIONS} has no earlier run"]
    if written := sum(known.disk_mb.get(stage, 0) for stage in work.needs):
        parts.append(f"about {written / 1000:.1f} GB in .store and data")
    ends = schedule.ends(0)
    time_needed = (
        f"about {max(ends.values()) / 60:.0f} min on {machine['cores']} cores "
        f"({sum(schedule.seconds.values()):,.0f} CPU s; this machine runs the probe at "
        f"{known.pace(machine):.2f} of the reference)"
    )
    if schedule.first:
        study = schedule.first.partition("@")[2]
        first = about(ends[schedule.first])
        time_needed += f"; first results ({study} table and figure) after {first}"
    lines = ["; ".join(parts), time_needed]
    if unknown := work.needs.keys() - known.stages.keys():
        lines.append(
            f"{len(unknown)} stages have no recorded duration: a median of others is taken"
        )
    if known.machine["bfloat16_units"] and not machine["bfloat16_units"]:
        lines.append("this machine has no bfloat16 units, the reference has: it may take longer")
    return lines


def downloads(work: Work, known: Durations) -> str:
    """How many wheels are to be fetched, and their MB as far as known."""
    missing = [name for name, size in wheels(work.commands).items() if size is None]
    if not missing:
        return "no downloads"
    sizes = [known.download_mb[name] for name in missing if name in known.download_mb]
    least = "at least " if len(sizes) < len(missing) else ""
    size = f"{least}{sum(sizes):.0f} MB" if sizes else "size unknown"
    return f"{len(missing)} download{'s' if len(missing) > 1 else ''}, {size}"


def wheels(commands: Mapping[str, str]) -> dict[str, float | None]:
    """{package==version: MB of its wheel in the store, None if it is not there} of all commands."""
    options = [dict(pairwise(shlex.split(command))) for command in commands.values()]
    fetched = [option for option in options if "--package" in option]
    stored = (store_root() / "wheels").glob("*.whl") if fetched else ()
    sizes = {sha256(path): round(path.stat().st_size / 1e6, 1) for path in stored}
    return {f"{o['--package']}=={o['--version']}": sizes.get(o["--sha256"]) for o in fetched}


def measured(work: Work, machine: Mapping[str, float], took: Mapping[str, float]) -> Durations:
    """What a run took, for the stages that ran; `took` is their CPU-seconds."""
    from dvc.repo import Repo

    from pipeline.data.store_care import list_stores

    stores = {store["fingerprint"]: store["bytes"] for store in list_stores(store_root())}
    disk = {}
    with Repo() as repo:
        for stage in (s for s in repo.index.stages if s.addressing in took):
            sizes = [out.meta.size or 0 for out in stage.outs]
            for path in (Path(out.fs_path) for out in stage.outs):
                if path.suffix == ".json":  # perhaps the manifest of a store
                    sizes.append(stores.get(read_json(path).get("fingerprint"), 0))
            disk[stage.addressing] = round(sum(sizes) / 1e6, 1)
    fetched = {name: size for name, size in wheels(work.commands).items() if size}
    seconds = {stage: round(value, 1) for stage, value in took.items()}
    return Durations(dict(machine), seconds, disk, fetched)


def side_by_side(schedule: Schedule) -> dict[str, float]:
    """Run the stages of a schedule, each in processes of its own; what fails is noted there.

    Returns {stage: CPU-seconds} of those that ran: DVC skips a stage if nothing that it needs has
    changed, and may have its outs in the cache.
    """
    running: dict[str, _Process] = {}
    took: dict[str, float] = {}
    started = time.monotonic()
    try:
        while True:
            for stage in [name for name, process in running.items() if _ended(process)]:
                process, now = running.pop(stage), time.monotonic()
                process.reader.join()
                if process.ran and not process.returncode:
                    took[stage] = process.cpu_seconds
                    schedule.saw(stage, now)
                schedule.end(stage, failed=process.returncode != 0)
                print(
                    f"[{stage}] {'failed' if process.returncode else 'done'} after "
                    f"{now - process.began:.0f} s ({process.cpu_seconds:.0f} CPU s); "
                    f"{progress(schedule, started, now)}",
                    flush=True,
                )
            for stage, cores in schedule.start(time.monotonic()).items():
                running[stage] = _start(stage, cores)
            if not running:
                return took
            time.sleep(0.1)
    except KeyboardInterrupt:
        print("stopped; what is finished is kept: run again to go on", file=sys.stderr, flush=True)
        os._exit(130)  # the stages end with this process


def progress(schedule: Schedule, started: float, now: float) -> str:
    """How many stages are done, since when, and how long the others will take."""
    ended = len(schedule.done) + len(schedule.failed)
    said = f"{ended} of {len(schedule.needs)} stages in {(now - started) / 60:.0f} min"
    left = max(schedule.ends(now).values(), default=0)
    if not left:
        return said
    return f"{said}, {about(left)} left"


def about(seconds: float) -> str:
    """A time in minutes, in words."""
    return f"about {seconds / 60:.0f} min" if seconds >= 60 else "less than 1 min"


class _Process(subprocess.Popen[str]):
    """`dvc repro` of a stage: when it began, whether DVC ran the stage, and what that took."""

    began: float  # on the monotonic clock
    ran = False
    cpu_seconds = 0.0
    reader: threading.Thread  # of what it says


def _start(stage: str, cores: list[int]) -> _Process:
    words = ["dvc", "--wait-for-lock", "repro", "--single-item", stage]
    process = _Process(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    os.sched_setaffinity(process.pid, cores)
    process.began = time.monotonic()
    process.reader = threading.Thread(target=_relay, args=(stage, process))
    process.reader.start()
    return process


def _ended(process: _Process) -> bool:
    """Whether a stage has ended; if so, its CPU time is known, that of its own processes too."""
    pid, status, usage = os.wait4(process.pid, os.WNOHANG)
    if pid:
        process.returncode = os.waitstatus_to_exitcode(status)
        process.cpu_seconds = usage.ru_utime + usage.ru_stime
    return pid != 0


def _relay(stage: str, process: _Process) -> None:
    """Print what a stage says, each line after its name, without DVC's advice after every stage."""
    for line in process.stdout or ():
        process.ran |= line.startswith("Running stage")
        if line.strip() and not line.startswith(ADVICE):
            print(f"[{stage}] {line}", end="", flush=True)


if __name__ == "__main__":
    run(reproduce)
