"""Edits and transfers by a guide, with frames on the way; files as `stages.edit_semantics`'s."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, UInt8

from pipeline.data.images import to_float, to_uint8
from pipeline.data.mask_files import LEAVE, read_patch
from pipeline.editing.optimize import ByExtractor, Forward, Rendered, optimize_latents
from pipeline.editing.semantic.cases import Case, Setup
from pipeline.editing.semantic.edits import Target, apply_edit
from pipeline.editing.semantic.files import read_edit
from pipeline.editing.semantic.method import by_mask, squared_norm
from pipeline.editing.semantic.options import Rule, Success
from pipeline.editing.semantic.outcomes import Outcome
from pipeline.editing.semantic.scores import kept_iou, lab_change, region_iou
from pipeline.editing.semantic.study import write_one
from pipeline.runtime.files import atomic
from studio.compute.opened import Opened, jpeg
from studio.samples import Sample

EVERY = 5  # steps between frames

Report = Callable[[object], None]
Mask = UInt8[np.ndarray, "size size"]
Image = UInt8[np.ndarray, "3 size size"]


@dataclass(frozen=True)
class Seen:
    """A sample at the size of masks: its image, and what the guide and the judge see in it."""

    ws: torch.Tensor  # [1, num_ws, w_dim]
    image: Image
    guide: Mask
    judge: Mask


class Editor:
    """Edits one study's samples by one guide, into one folder."""

    def __init__(self, opened: Opened, guide: Path, folder: Path):
        self.opened, self.place, self.path, self.folder = opened, opened.place, guide, folder
        self.guide = opened.guide(guide)
        self.size, self.classes = opened.pool.size, opened.pool.classes

    def see(self, ws: torch.Tensor) -> Seen:
        """Look at a sample; without a judge, the guide judges."""
        forward = Forward(self.opened.generator, "w_plus", self.guide.taps, images=True)
        with torch.inference_mode():
            rendered = forward(ws)
        images = to_uint8(rendered.pictures, self.size)
        own, judge = self.guide.predict(rendered.features, self.size)[0], self.opened.judge
        theirs = own if judge is None else judge.label(to_float(images), self.size)[0]
        return Seen(ws, images[0], own, theirs)

    def edit(self, sample: Sample, steps: int, report: Report) -> dict:
        """Move a sample until the guide sees edit.png of the folder in it."""
        before = self.see(self.opened.ws(sample))
        target = apply_edit(read_edit(self.folder / "edit.png"), before.guide, self.classes)
        rule = replace(Rule(), space="w_plus", steps=steps)
        watch = Watch(self, before, target, steps, report)
        after = self.see(self._search(before.ws, target, rule, watch))
        facts = self._write(before, after, target, rule, watch.losses)
        return facts | {"steps": watch.shown, "files": self._files()}

    def transfer(self, sample: Sample, moved: Sample) -> dict:
        """What the vector of another sample's edit does here, by edit.png of the folder."""
        before, after = (self.see(self.opened.ws(one)) for one in (sample, moved))
        painted = read_patch(self.folder / "edit.png", self.classes, before.guide.shape)
        mask = np.where(painted == LEAVE, before.guide, painted)
        facts = self._write(before, after, Target(mask, mask != before.guide), Rule(), [])
        del facts["success"]
        return facts | {"files": self._files()}

    def _search(self, ws: torch.Tensor, target: Target, rule: Rule, watch: "Watch") -> torch.Tensor:
        ws = ws.clone()  # no tensor of inference mode
        objective = by_mask(ByExtractor(self.guide), target.mask[None])
        forward = Forward(self.opened.generator, rule.space, objective.taps)

        def loss(rendered: Rendered) -> torch.Tensor:
            return objective.value(rendered) + rule.near * squared_norm(rendered.latents - ws)

        found = optimize_latents(
            forward, ws, loss, rule.steps, rule.learning_rate, on_step=watch.step
        )
        return found.last

    def _write(
        self, before: Seen, after: Seen, target: Target, rule: Rule, losses: list[float]
    ) -> dict:
        """The tool's files, and what they say, for the page."""
        z = np.zeros(self.opened.generator.z_dim, np.float32)
        unused = before.image
        case = Case("edit", 0, 0, z, before.image, before.guide, target, unused)
        outcome = Outcome(
            before=before.ws[0].float().cpu().numpy(),
            after=after.ws[0].float().cpu().numpy(),
            image=after.image,
            teacher_mask=after.guide,
            judge_mask=after.judge,
            losses=np.array(losses, np.float32),
            seconds=0.0,
            cpu_seconds=0.0,
        )
        scores = self._scores(before, after, target)
        setup = Setup(
            checkpoint=str(self.place.checkpoint),
            teacher=self.place.teacher,
            judge=self.place.judge,
            label_size=self.size,
            extractors={"extractor": str(self.path)},
            loop_tap_resolution=self.place.loop_tap_resolution,
            rule=rule,
            labels=self.place.labels,
        )
        write_one(self.folder, setup, case, outcome, scores)
        judged = self.opened.judge is not None
        return {
            "region_pixels": int(target.region.sum()),
            "loop_iou": scores["iou_region_guide"],
            "judge_iou": scores["iou_region_judge"] if judged else None,
            "lab_outside": scores["lab_outside"],
            "success": bool(scores["success"]),
            "judged_by": "judge" if judged else "loop",
        }

    def _scores(self, before: Seen, after: Seen, target: Target) -> dict[str, float]:
        limits, region = Success(), region_iou(after.judge, target.mask, target.region)
        lab = lab_change(before.image, after.image, ~target.region)
        return {
            "iou_region_judge": region,
            "iou_region_guide": region_iou(after.guide, target.mask, target.region),
            "iou_kept_judge": kept_iou(before.judge, after.judge, target.region),
            "lab_outside": lab,
            "success": float(region >= limits.success_iou and lab <= limits.success_lab),
        }

    def _files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.suffix != ".partial")


class Watch:
    """What is told of a search: losses at each step, a frame and scores every few steps."""

    def __init__(self, editor: Editor, before: Seen, target: Target, steps: int, report: Report):
        self.editor, self.target, self.steps, self.report = editor, target, steps, report
        self.before = editor.opened.frame(before.ws)
        self.outside = _smaller(~target.region, self.before.shape[-1])
        self.losses: list[float] = []
        self.shown: list[int] = []
        self.facts: dict[str, float | None] = {"iou": None, "lab": None, "frame": None}

    def step(self, step: int, rendered: Rendered, losses: torch.Tensor) -> None:
        """Tell of a step; Cancelled if nobody wants it any more."""
        self.report(None)
        self.losses.append(float(losses[0]))
        extra = {}
        if step % EVERY == 0 or step == self.steps:
            extra = {"jpeg": self._frame(step, rendered)}
        facts = {"step": step, "of": self.steps, "loss": round(self.losses[-1], 5)}
        self.report(facts | self.facts | extra)

    def _frame(self, step: int, rendered: Rendered) -> bytes:
        features = {name: x.detach() for name, x in rendered.features.items()}
        image = self.editor.opened.frame(rendered.ws.detach(), features)
        mask = self.editor.guide.predict(features, self.editor.size)[0]
        self.facts = {
            "iou": round(region_iou(mask, self.target.mask, self.target.region), 4),
            "lab": round(lab_change(self.before, image, self.outside), 3),
            "frame": step,
        }
        self.shown.append(step)
        data = jpeg(image)
        with atomic(self.editor.folder / f"step_{step:03d}.jpg") as partial:
            partial.write_bytes(data)
        return data


def _smaller(region: Bool[np.ndarray, "height width"], size: int) -> Bool[np.ndarray, "size size"]:
    """A region at another size, by its nearest pixels."""
    places = (np.arange(size) + 0.5) * len(region) / size
    return region[np.ix_(places.astype(int), places.astype(int))]
