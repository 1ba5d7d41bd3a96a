"""Which stage starts next on which cores, and when all of them will have ended."""

import copy
from collections.abc import Iterable, Mapping
from statistics import median

UNKNOWN = 30.0  # CPU-seconds of a stage where no stage has a recorded duration
STARTING = 6.0  # CPU-seconds of every stage that more cores do not shorten: DVC and imports
TRUST = 60.0  # seconds that must be seen before the pace seen counts as much as the one expected


def expected(stages: Iterable[str], recorded: Mapping[str, float]) -> dict[str, float]:
    """CPU-seconds of each stage: as recorded, else the median of its name, else of all."""
    named: dict[str, list[float]] = {}
    for stage, seconds in recorded.items():
        named.setdefault(_name(stage), []).append(seconds)
    rest = list(recorded.values()) or [UNKNOWN]
    return {s: recorded.get(s, median(named.get(_name(s), rest))) for s in stages}


def _name(stage: str) -> str:
    """What a stage is called in dvc.yaml: of `fit@ffhq-lse` fit."""
    return stage.partition("@")[0]


def by_study(stages: Iterable[str]) -> dict[str, str]:
    """The study of each stage: of `fit@ffhq-lse` ffhq, if there is a `judge@ffhq`; else ''."""
    parts = {stage: stage.partition("@")[2] for stage in stages}
    names = {*parts.values()} - {""}

    def study(own: str) -> str:
        return min((n for n in names if own == n or own.startswith(f"{n}-")), default="")

    return {stage: study(own) for stage, own in parts.items()}


def fastest(name: str, seconds: Mapping[str, float]) -> str:
    """The stage `name`@study of the study of the fewest CPU-seconds; '' if there is none."""
    studies = by_study(seconds)
    total = dict.fromkeys(studies.values(), 0.0)
    for stage, study in studies.items():
        total[study] += seconds[stage]
    found = [stage for stage in seconds if stage.startswith(f"{name}@")]
    return min(found, key=lambda stage: total[studies[stage]], default="")


def needed_by(stage: str, needs: Mapping[str, set[str]]) -> set[str]:
    """`stage` and all that it needs, directly or not."""
    found, left = set(), {stage} & {*needs}
    while left:
        found |= left
        left = set().union(*(needs[s] for s in left)) - found
    return found


def paths_to_the_end(
    needs: Mapping[str, set[str]], seconds: Mapping[str, float]
) -> dict[str, float]:
    """CPU-seconds from each stage's start to the end of all that waits for it, one by one."""
    waits = {stage: [s for s in needs if stage in needs[s]] for stage in needs}
    found: dict[str, float] = {}

    def length(stage: str) -> float:
        if stage not in found:
            found[stage] = seconds[stage] + max(map(length, waits[stage]), default=0.0)
        return found[stage]

    return {stage: length(stage) for stage in needs}


class Schedule:
    """Stages on cores, at most one a core: what is ready of the longest path to the end goes first.

    All that the stage `first` needs goes before that, and alone while `first` is not done: a long
    stage that began beside it would keep a core from it. Its like of other studies begin as soon
    as they can. Times are seconds of any one clock.
    """

    def __init__(
        self,
        needs: Mapping[str, set[str]],  # {stage: the stages among them that it needs}
        seconds: Mapping[str, float],  # CPU-seconds expected of each stage
        cores: Iterable[int],  # their numbers
        first: str = "",  # the stage with the first results; '': none
    ):
        self.needs, self.seconds, self.cores = dict(needs), dict(seconds), sorted(cores)
        self.first, self.needed_first = first, needed_by(first, needs)
        paths = paths_to_the_end(needs, seconds)
        soon = self.needed_first | {s for s in needs if first and _name(s) == _name(first)}
        self.waiting = sorted(needs, key=lambda s: (s not in soon, -paths[s]))
        self.running: dict[str, tuple[float, list[int]]] = {}  # when it began, its cores
        self.done: set[str] = set()
        self.failed: list[str] = []
        self._seen = self._foreseen = TRUST

    def start(self, now: float) -> dict[str, list[int]]:
        """{stage: its cores} of the stages that begin now."""
        ready = [stage for stage in self.waiting if self.needs[stage] <= self.done]
        if self.needed_first & {*ready, *self.running}:
            ready = [stage for stage in ready if stage in self.needed_first]
        taken = {core for _, own in self.running.values() for core in own}
        free = [core for core in self.cores if core not in taken]
        begun = {s: free[i :: min(len(free), len(ready))] for i, s in enumerate(ready[: len(free)])}
        self.waiting = [stage for stage in self.waiting if stage not in begun]
        self.running |= {stage: (now, own) for stage, own in begun.items()}
        return begun

    def end(self, stage: str, failed: bool = False) -> None:
        """Note that a stage has ended."""
        del self.running[stage]
        if failed:
            self.failed.append(stage)
        else:
            self.done.add(stage)

    def saw(self, stage: str, now: float) -> None:
        """Learn the pace of this machine from a running stage that ends now."""
        self._seen += now - self.running[stage][0]
        self._foreseen += self._alone(stage)

    def ends(self, now: float) -> dict[str, float]:
        """Seconds from now at which each stage will have ended that runs or is still to run."""
        ahead, clock, found = copy.deepcopy(self), now, {}
        ahead.start(clock)
        while ahead.running:
            last = {s: began + ahead._takes(s) for s, (began, _) in ahead.running.items()}
            stage = min(last, key=last.__getitem__)
            clock = max(clock, last[stage])
            found[stage] = clock - now
            ahead.end(stage)
            ahead.start(clock)
        return found

    def _takes(self, stage: str) -> float:
        return self._alone(stage) * self._seen / self._foreseen

    def _alone(self, stage: str) -> float:
        """Seconds of a running stage on its cores, at the pace that was expected."""
        seconds, cores = self.seconds[stage], len(self.running[stage][1])
        return min(seconds, STARTING) + max(seconds - STARTING, 0) / cores
