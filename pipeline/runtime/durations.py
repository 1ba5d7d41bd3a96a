"""What an earlier run took: CPU-seconds and disk of each stage, and how fast its machine was."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.runtime.files import read_json, write_json


@dataclass(frozen=True)
class Durations:
    """The file of `make repro`'s estimates; a machine is what the probe says, and its cores."""

    machine: dict[str, float] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)  # CPU-seconds on that machine
    disk_mb: dict[str, float] = field(default_factory=dict)  # of a stage's outs and stores
    download_mb: dict[str, float] = field(default_factory=dict)  # of package==version

    @classmethod
    def read(cls, path: Path) -> "Durations":
        """The file; empty where there is none. InputError if it is no JSON."""
        return cls(**read_json(path)) if path.exists() else cls()

    def write(self, path: Path) -> None:
        """Write the file, atomically."""
        write_json(path, asdict(self))

    def pace(self, machine: Mapping[str, float]) -> float:
        """How many times as fast as the recorded machine another one runs the probe."""
        return machine["probe_rate"] / self.machine["probe_rate"] if self.machine else 1.0

    def on(self, machine: Mapping[str, float]) -> dict[str, float]:
        """CPU-seconds of each stage on another machine."""
        return {stage: seconds / self.pace(machine) for stage, seconds in self.stages.items()}

    def merged(self, run: "Durations") -> "Durations":
        """The file after a run of some stages; the others' seconds become those of its machine."""
        rounded = {s: round(seconds, 1) for s, seconds in self.on(run.machine).items()}
        return Durations(
            run.machine,
            rounded | run.stages,
            self.disk_mb | run.disk_mb,
            self.download_mb | run.download_mb,
        )
