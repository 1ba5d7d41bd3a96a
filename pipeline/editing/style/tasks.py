"""Work of a study of local transfers that is kept as pieces: contributions, and edits of a pair."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8

from pipeline.analysis.control_features import Reinitialized
from pipeline.data.arrays import Group
from pipeline.data.features import Source, stream
from pipeline.editing.style.catalog import Catalog
from pipeline.editing.style.contributions import measure_contributions
from pipeline.editing.style.method import Picture, Region, Transfer, edit_pair
from pipeline.editing.style.options import ClusterRule, Plan
from pipeline.editing.style.plan import class_groups
from pipeline.editing.style.registry import METHODS
from pipeline.extractors.networks import load_extractor
from pipeline.generators.taps import find
from pipeline.metrics.color import squared_error
from pipeline.runtime import pieces
from pipeline.runtime.files import sha256

PIECES = pieces.Kind("style_edits", __name__)
MAP = 64  # px of error maps


@dataclass(frozen=True)
class Inputs:
    """Files of a study."""

    source: Source
    images: str
    masks: str
    features: str  # manifest of cached taps
    extractor: str  # an LSE, whose masks are the memberships of method sequential_lse


@dataclass(frozen=True)
class Task:
    """What a worker process needs: the study, the generator's kind, and the catalog chosen."""

    inputs: Inputs
    plan: Plan
    rule: ClusterRule
    catalog: Catalog
    kind: str  # of KINDS

    @cached_property
    def facts(self) -> dict:
        """All that the contributions depend on but where files lie."""
        source = self.inputs.source
        files = [source.checkpoint, self.inputs.extractor, self.inputs.features]
        return {
            "compute": source.compute,
            "files": [sha256(path) for path in files],
            "ws": Group(source.latents).digest("ws"),
            "masks": Group(self.inputs.masks).digest("masks"),
            "plan": asdict(self.plan),
            "rule": asdict(self.rule),
            "kind": self.kind,
        }

    def source(self) -> Source:
        """The trained generator, or the redrawn one."""
        s = self.inputs.source
        if self.kind == "trained":
            return s
        return Reinitialized(s.checkpoint, s.latents, s.device, s.compute, seed=self.rule.seed)

    def contributions(self) -> dict[str, np.ndarray]:
        """M of every membership and style, and the images' statistics, which were measured."""
        found = PIECES.read(self.facts)
        assert found is not None, "contributions are measured before any pair is edited"
        return found

    def work(self) -> dict[str, np.ndarray]:
        """Measure M of one generator."""
        classes = Group(self.inputs.masks).attributes["classes"]
        count = len(self.catalog.centroids)
        memberships = {"clusters": (cluster_labels(self, self.catalog), count)}
        if self.kind == "trained":
            memberships["lse"] = (lse_labels(self), len(classes))
        matrices, statistics = measure_contributions(
            self.source(),
            memberships,
            self.rule.normalization,
            self.plan.resampling,
            Group(self.inputs.masks).label_size,
        )
        return matrices | {"statistics": np.array(statistics)}


@dataclass(frozen=True)
class PairTask:
    """All edits of a pair by one generator."""

    task: Task
    pair: tuple[int, int]  # rows of the test split: target, reference

    @property
    def facts(self) -> dict:
        """All that the edits depend on."""
        return self.task.facts | {"pair": self.pair}

    def work(self) -> dict[str, np.ndarray]:
        """Make and score the edits."""
        return edit_pair_by_all(self.task, self.pair)


def cluster_labels(task: Task, catalog: Catalog) -> UInt8[np.ndarray, "sample y x"]:
    """The cluster of every pixel of the samples that contributions are measured on."""
    source, tap = task.inputs.source, find(task.inputs.source.generator().taps, catalog.layer)
    maps = stream(source, "train", 0, task.plan.samples, (tap,))
    return np.concatenate(
        [catalog.label(f[tap.name].float().permute(0, 2, 3, 1).cpu().numpy()) for f, _ in maps]
    )


def lse_labels(task: Task) -> UInt8[np.ndarray, "sample size size"]:
    """The LSE's class of every pixel of the same samples."""
    source, size = task.inputs.source, Group(task.inputs.masks).label_size
    extractor = load_extractor(task.inputs.extractor, source.device)
    maps = stream(source, "train", 0, task.plan.samples, extractor.taps)
    return np.concatenate([extractor.predict(features, size) for features, _ in maps])


def errors(
    own: Picture, edited: Picture, region: Bool[np.ndarray, "size size"]
) -> tuple[float, float, Float[np.ndarray, "y x"]]:
    """In-MSE and Out-MSE in squared CIELAB units, and the error map at MAP px."""
    found = squared_error(own[None], edited[None])[0]
    small = F.interpolate(torch.from_numpy(found)[None, None], (MAP, MAP), mode="area")
    return found[region].mean(), found[~region].mean(), small[0, 0].numpy()


def part_rows(
    matrices: Mapping[str, np.ndarray], membership: str, groups: Sequence[int]
) -> dict[str, np.ndarray]:
    """A part's row of M for every style: the sum over its clusters or classes."""
    prefix = f"{membership}/"
    found = {k.removeprefix(prefix): m for k, m in matrices.items() if k.startswith(prefix)}
    return {name: m[list(groups)].sum(0) for name, m in found.items()}


def _exposure(task: Task) -> tuple[float, float]:
    """What to subtract from images and to divide them by: a control's are of any scale, and get
    the mean and deviation of the trained generator's.
    """
    if task.kind == "trained":
        return 0.0, 1.0
    mean, deviation = task.contributions()["statistics"]
    usual = replace(task, kind="trained").contributions()["statistics"]
    scale = deviation / usual[1]
    return mean - usual[0] * scale, scale


def edits(
    task: Task, transfer: Transfer, regions: Mapping[str, Region]
) -> Iterator[tuple[str, str, Picture]]:
    """(part, method, edited image) for every key of the plan."""
    catalog, plan = task.catalog, task.plan
    groups = class_groups(Group(task.inputs.masks).attributes["classes"], plan.classes)
    matrices, done = task.contributions(), {}
    for part, method, strength in plan.keys(task.kind, list(regions)):
        lse = METHODS[method].lse
        members = groups[part] if lse else catalog.unions[part]
        contributions = part_rows(matrices, "lse" if lse else "clusters", members)
        key = (None if method == "global" else part, method, strength)  # it knows no parts
        if key not in done:
            region = regions[part]
            done[key] = edit_pair(transfer, region, method, strength, contributions, plan)
        yield part, method, done[key]


def edit_pair_by_all(task: Task, pair: tuple[int, int]) -> dict[str, np.ndarray]:
    """Errors, error maps and some images of all edits of a pair."""
    source, masks = task.source(), Group(task.inputs.masks)
    shown = [masks.read("test", "masks", slice(row, row + 1))[0] for row in pair]
    own, other = (source.ws("test", row, row + 1) for row in pair)
    transfer = Transfer(source.generator(), own, other, len(shown[0]), exposure=_exposure(task))
    unions = task.catalog.unions
    groups = class_groups(masks.attributes["classes"], task.plan.classes)
    named = [part for part in task.plan.classes if unions[part]]
    regions = {part: np.asarray(np.isin(shown, groups[part]).any(0)) for part in named}
    rows, kept = [], []
    for part, method, image in edits(task, transfer, regions):
        rows.append(errors(transfer.own, image, regions[part]))
        kept += [image] if method == "sequential" else []
    inside, outside, maps = zip(*rows, strict=True)
    ends = [errors(transfer.own, transfer.other, region)[:2] for region in regions.values()]
    found = {"inside": inside, "outside": outside, "maps": np.stack(maps).astype(np.float32)}
    found |= {"reference": ends}  # In- and Out-MSE of the reference itself, of each part
    found |= {"edits": kept, "ends": [transfer.own, transfer.other]}
    return {name: np.array(values) for name, values in found.items()}
