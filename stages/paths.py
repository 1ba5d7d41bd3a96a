"""Paths that go together: dataclasses whose fields are arguments of stages, in their order.

`arguments.py` says what each path means. What several stages open by such paths is a method.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.runtime.options import Synthesis

if TYPE_CHECKING:
    from pipeline.data.features import Source
    from pipeline.data.inputs import Study


@dataclass(frozen=True)
class Generated:
    """A generator, and the latents of a study's samples."""

    checkpoint: Path
    latents: Path

    def source(self, machine: Synthesis) -> "Source":
        """What it takes to synthesize the samples."""
        from pipeline.data.features import open_source

        return open_source(self.checkpoint, self.latents, machine.device, machine.compute)


@dataclass(frozen=True)
class Labeled(Generated):
    """Samples with the teacher's masks, or those of another label space."""

    masks: Path


@dataclass(frozen=True)
class Pixels(Labeled):
    """Labeled samples with the hypercolumns of some of their pixels."""

    pixels: Path

    def study(self, machine: Synthesis) -> "Study":
        """The samples, with the masks that stand for an annotator; InputError if they differ."""
        from pipeline.data.inputs import open_study
        from pipeline.runtime.files import read_json

        facts = read_json(self.pixels)["facts"]
        return open_study(self.source(machine), str(self.masks), facts)


@dataclass(frozen=True)
class Imaged(Generated):
    """Samples with their images and the teacher's masks."""

    images: Path
    masks: Path


@dataclass(frozen=True)
class Networks:
    """Who labels, and who judges."""

    teacher: Path
    judge: Path


@dataclass(frozen=True)
class Measured:
    """Scores, and what they cost."""

    metrics: Path
    costs: Path

    def write(self, report: dict, spent: dict) -> None:
        """Write both as JSON."""
        from pipeline.runtime.files import write_json

        write_json(self.metrics, report)
        write_json(self.costs, spent)
