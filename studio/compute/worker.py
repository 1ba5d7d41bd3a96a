"""The methods that lanes offer to the server; each takes `report`, which raises Cancelled."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from pipeline.data.annotation_files import write_samples, write_tools
from pipeline.data.palette import class_colors
from pipeline.runtime.files import atomic
from pipeline.runtime.workers import keep_freed_memory
from studio.compute.conditional import sample_painted
from studio.compute.edits import Editor
from studio.compute.opened import Opened, jpeg
from studio.compute.refits import Refits
from studio.place import Place
from studio.samples import Sample

Report = Callable[[object], None]


class Worker:
    """One process's networks, loaded when they are needed."""

    def __init__(self, place: Place):
        keep_freed_memory()
        torch.set_num_threads(1)
        self.place = place
        self.opened = Opened(place)
        self._refits: Refits | None = None

    @property
    def refits(self) -> Refits:
        """The current extractor; of the quick lane alone."""
        if self._refits is None:
            self._refits = Refits(self.opened)
        return self._refits

    def open(self, report: Report) -> dict:
        """Facts of the study, for the web process."""
        pool, generator = self.opened.pool, self.opened.generator
        return {
            "pool": pool,
            "colors": class_colors(pool.classes),
            "resolution": generator.resolution,
            "preview_size": self.opened.preview_size(),
            "settled": self.refits.settled(),
        }

    def warm(self, report: Report) -> None:
        """Load what edits need, before the first one."""
        self.opened.frame(self.opened.ws(Sample("pool", 0)))
        _ = self.opened.pool, self.opened.judge

    def look(self, report: Report, sample: Sample, kind: str) -> bytes:
        """A picture or the mask of a sample."""
        if kind == "mask":
            return self.refits.mask(sample)
        if kind == "preview":
            return jpeg(self.opened.preview(sample))
        return jpeg(self.opened.image(self.opened.ws(sample)))

    def live(self, report: Report, masks: Mapping[int, np.ndarray]) -> None:
        """A live fit."""
        self.refits.live(masks)

    def settle(self, report: Report) -> dict:
        """A settled fit of the files of annotations."""
        return self.refits.settle(report)

    def reload(self, report: Report) -> None:
        """The settled extractor again, in a new process."""
        self.refits.reload()

    def forget(self, report: Report) -> None:
        """No annotation any more."""
        self.refits.forget()

    def describe(self, report: Report, row: int) -> None:
        """Keep some pixels of a row, to suggest it or not."""
        self.refits.describe(row)

    def suggest(self, report: Report, annotated: set[int]) -> list[int]:
        """Rows to annotate next."""
        return self.refits.suggest(annotated)

    def export(self, report: Report, count: int, folder: Path) -> list[str]:
        """Images of the pool's first samples, and what annotation tools need."""
        pool, place = self.opened.pool, self.place
        write_samples(self.opened.source, place.study, pool.generator, count, folder / "images")
        write_tools(folder, pool.classes, self.opened.generator.resolution)
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))

    def edit(self, report: Report, sample: Sample, folder: Path, guide: Path, steps: int) -> dict:
        """An edit, as edit.png of the folder says."""
        return Editor(self.opened, self._own(guide, folder), folder).edit(sample, steps, report)

    def transfer(
        self, report: Report, sample: Sample, moved: Sample, folder: Path, guide: Path
    ) -> dict:
        """An edit's vector, added to another sample."""
        return Editor(self.opened, self._own(guide, folder), folder).transfer(sample, moved)

    def sample(self, report: Report, folder: Path, guide: Path, count: int, steps: int) -> dict:
        """Images like target.png of the folder."""
        network = self.opened.guide(self._own(guide, folder))
        return sample_painted(self.opened, network, folder, count, steps, report)

    def _own(self, guide: Path, folder: Path) -> Path:
        """A copy of the guide beside the results: the next fit takes its place."""
        copy = folder / "guide.safetensors"
        with atomic(copy) as partial:
            shutil.copyfile(guide, partial)
        return copy
