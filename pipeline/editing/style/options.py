"""Options of local transfers: how the catalog of parts is made, and what is edited."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from pipeline.editing.style.registry import METHODS
from pipeline.runtime.errors import InputError


@dataclass(frozen=True)
class ClusterRule:
    """How the catalog is made."""

    # Px of the layers to cluster: candidates are the first tap of each; repeat for more.
    resolutions: tuple[int, ...] = (16, 32, 64)
    counts: tuple[int, ...] = (20, 40)  # numbers of clusters to try; repeat for more
    cluster_samples: int = 24  # training samples whose activations are clustered (the paper: 200)
    held_out: int = 24  # validation samples that choose layer and clusters, and test samples
    restarts: int = 2  # runs of k-means, of which the best is kept
    normalization: str = "image"  # unit variance of activations per image, or over the dataset
    min_iou: float = 0.2  # a class or part whose union of clusters has a lower IoU has no name
    seed: int = 0  # seed of k-means and of the control's weights


@dataclass(frozen=True)
class Plan:
    """Sizes and strengths of a study."""

    parts: tuple[str, ...]  # part to edit and its classes, eyes=eye,brow; repeat for more
    pairs: int = 8  # targets, each with a reference
    samples: int = 12  # training samples that contributions are measured on
    # Strength of sequential queries, in channels of 512; repeat for more.
    epsilons: tuple[float, ...] = (5.0, 30.0, 150.0)
    lambdas: tuple[float, ...] = (2.0, 8.0, 32.0)  # of simultaneous queries; repeat for more
    # Strength of global interpolation, 0 to 1; repeat for more.
    interpolations: tuple[float, ...] = (0.1, 0.3, 1.0)
    # Sequential queries take channels of M above this: rho / (1 + rho).
    contribution_threshold: float = 0.0
    coarse_share: float = 1.0  # epsilon of layers up to 8 px is multiplied by this
    # How memberships come to a layer's size: bilinear (the paper's), nearest or area.
    resampling: str = "bilinear"
    # In-MSE at which methods are compared, as a share of the reference's.
    matched_share: float = 0.1
    # 100 pairs, 200 samples and the first 32 px layer, whatever the sizes say.
    paper_sizes: bool = False

    @cached_property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """The classes of each part."""
        return parse_parts(self.parts)

    @cached_property
    def strengths(self) -> dict[str, tuple[float, ...]]:
        """Strengths of every method."""
        lists = {"epsilons": self.epsilons, "lambdas": self.lambdas}
        lists |= {"interpolations": self.interpolations, "once": (1.0,)}
        return {name: lists[one.strengths] for name, one in METHODS.items()}

    def keys(self, kind: str, parts: Sequence[str]) -> list[tuple[str, str, float]]:
        """(part, method, strength) of every edit of a pair."""
        methods = {
            m: s for m, s in self.strengths.items() if kind == "trained" or METHODS[m].control
        }
        return [(p, m, s) for p in parts for m, values in methods.items() for s in values]


def at_paper_sizes(plan: Plan, rule: ClusterRule) -> tuple[Plan, ClusterRule]:
    """The paper's N = 200 and layer for clusters and contributions, and enough pairs for means."""
    rule = replace(rule, resolutions=(32,), counts=(20,), cluster_samples=200, restarts=10)
    return replace(plan, pairs=100, samples=200), rule


def parse_parts(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """`eyes=eye,brow` and so on to {part: classes}."""
    found = {}
    for text in texts:
        name, _, members = text.partition("=")
        if not name or not members or name in found:
            raise InputError(f"part {text!r}", "name=class,class of a new name", "change parts")
        found[name] = tuple(members.split(","))
    return found
