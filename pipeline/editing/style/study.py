"""A study of local transfers: every method, part and strength on pairs, beside a control.

Collins et al., "Editing in Style" (CVPR 2020), sec. 4. The control is the same generator with its
weights drawn anew, in the same regions: what is no merit of training shows there as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from pipeline.data.arrays import Group
from pipeline.data.stores import open_store
from pipeline.editing.style.catalog import (
    Catalog,
    build_catalog,
    candidates,
    mean_iou,
)
from pipeline.editing.style.options import ClusterRule, Plan
from pipeline.editing.style.plan import KINDS, choose_pairs, class_groups
from pipeline.editing.style.tasks import PIECES, Inputs, PairTask, Task
from pipeline.runtime import pieces
from pipeline.runtime.errors import InputError
from pipeline.runtime.progress import say


@dataclass(frozen=True)
class Study:
    """Finished pieces of a study, to be summed up."""

    catalog: Catalog
    catalogs: list[Catalog]  # all candidates
    contributions: dict[str, np.ndarray]  # of the trained generator: {`membership/style`: M}
    parts: list[str]
    left_out: list[str]  # parts without a cluster
    pairs: list[tuple[int, int]]
    pieces: dict[str, list[dict[str, np.ndarray]]]  # of each kind, a pair each


def run_study(inputs: Inputs, plan: Plan, rule: ClusterRule, num_workers: int = 0) -> Study:
    """Make the catalog, measure contributions, edit all pairs."""
    masks = Group(inputs.masks)
    groups = class_groups(masks.attributes["classes"], plan.classes)
    pairs = choose_pairs(
        masks.read("test", "masks"), {part: groups[part] for part in plan.classes}, plan.pairs
    )
    _check_samples(inputs, plan, masks)
    catalogs = make_catalogs(inputs, groups, rule)
    classes = masks.attributes["classes"][1:]
    chosen = max(catalogs, key=lambda catalog: mean_iou(catalog, classes))
    say(f"clusters: {len(chosen.centroids)} of {chosen.layer} name the classes best")
    parts = [part for part in plan.classes if chosen.unions[part]]
    if not parts:
        raise InputError(
            f"clusters that are none of {', '.join(plan.classes)}",
            f"a part with an IoU of {rule.min_iou} or more",
            "raise cluster_samples or counts of edit_style",
        )
    kinds = [Task(inputs, plan, rule, chosen, kind) for kind in KINDS]
    device = inputs.source.device
    contributions = pieces.run(PIECES, kinds, device, num_workers, "measuring contributions")
    tasks = [PairTask(kind, pair) for pair in pairs for kind in kinds]
    edited = pieces.run(PIECES, tasks, device, num_workers, "editing styles")
    made = list(zip(tasks, edited, strict=True))
    return Study(
        chosen,
        catalogs,
        contributions[0],
        parts,
        [part for part in plan.classes if part not in parts],
        pairs,
        {kind: [found for own, found in made if own.task.kind == kind] for kind in KINDS},
    )


def make_catalogs(
    inputs: Inputs, groups: Mapping[str, Sequence[int]], rule: ClusterRule
) -> list[Catalog]:
    """A catalog of every candidate layer and number of clusters."""
    store, masks = open_store(inputs.features), Group(inputs.masks)
    layers = candidates(store, rule.resolutions)
    return [
        build_catalog(store, masks, groups, layer, count, rule)
        for layer, count in product(layers, rule.counts)
    ]


def _check_samples(inputs: Inputs, plan: Plan, masks: Group) -> None:
    total = masks.splits["train"]
    if not 1 <= plan.samples <= total:
        raise InputError(
            f"{plan.samples} samples for contributions", f"1 to {total}", "change samples"
        )
