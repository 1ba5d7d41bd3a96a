"""Images whose semantics are a painted mask, as `stages.sample_conditionally` makes them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.data.mask_files import read_mask
from pipeline.editing.optimize import ByExtractor, Rendered
from pipeline.editing.sampling.files import sample_like
from pipeline.editing.sampling.options import Search
from pipeline.extractors.networks import LSE
from pipeline.generators.taps import Tap
from studio.compute.edits import EVERY
from studio.compute.opened import Opened, jpeg

Report = Callable[[object], None]


@dataclass
class Watched:
    """A guide that tells of its looks: each is a step, after those that choose where to begin."""

    guide: ByExtractor
    opened: Opened
    target: Tensor  # [1, size, size]
    of: int  # looks in all
    report: Report
    images: bool = False
    looks: int = field(default=0)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.guide.classes

    @property
    def taps(self) -> tuple[Tap, ...]:
        return self.guide.taps

    def logits(self, rendered: Rendered, size: int) -> Tensor:
        """The guide's own; Cancelled if nobody wants them any more."""
        found = self.guide.logits(rendered, size)
        facts = {"step": self.looks, "of": self.of, "iou": None, "lab": None, "frame": None}
        self.report(None)
        if self.looks % EVERY == 0:
            features = {name: x.detach() for name, x in rendered.features.items()}
            frame = self.opened.frame(rendered.ws.detach(), features)
            loss = float(F.cross_entropy(found.detach(), self.target))
            self.report(facts | {"loss": round(loss, 5), "frame": self.looks, "jpeg": jpeg(frame)})
        self.looks += 1
        return found


def sample_painted(
    opened: Opened, guide: LSE, folder: Path, count: int, steps: int, report: Report
) -> dict:
    """Write `count` images like target.png of the folder into it; what the guide sees in them."""
    target = read_mask(folder / "target.png", guide.classes, opened.pool.size)
    search = Search(steps=steps, truncation_psi=opened.pool.truncation_psi)
    looks = count * (search.candidates + search.steps + 2)
    wanted = torch.from_numpy(target.astype(np.int64))[None].to(opened.source.device)
    watched = Watched(ByExtractor(guide), opened, wanted, looks, report)
    sample_like(opened.generator, watched, target[None], count, search, folder)
    for path in folder.glob("0_*.png"):  # of the first target, and the only one
        path.replace(path.with_name(path.name.removeprefix("0_")))
    seen = [read_mask(folder / f"{i}_mask.png", guide.classes) for i in range(count)]
    files = sorted(path.name for path in folder.iterdir() if path.suffix != ".partial")
    return {"agreements": [round(float((one == target).mean()), 4) for one in seen], "files": files}
