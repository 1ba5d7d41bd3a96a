"""A catalog of parts: clusters of activations, named by a teacher's masks instead of a human.

Collins et al., "Editing in Style" (CVPR 2020), sec. 3.1; the names are the IoU-optimal unions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, UInt8

from pipeline.data.arrays import Group
from pipeline.data.features import decode
from pipeline.data.stores import Store
from pipeline.editing.style.clustering import (
    SphericalKMeans,
    best_union,
    cluster_iou,
    contingency,
    majority_class,
    predict,
    union_iou,
)
from pipeline.editing.style.contributions import CONSTANT, NORMALIZATIONS
from pipeline.editing.style.options import ClusterRule
from pipeline.runtime.errors import InputError, choose
from pipeline.runtime.files import read_json, write_arrays, write_json

NAMED = ("layer", "normalization", "unions", "iou", "single", "majority", "purity")
Groups = Mapping[str, Sequence[int]]  # name -> ids of the classes, or clusters, that make it up
Maps = Float32[np.ndarray, "sample y x channel"]


@dataclass(frozen=True)
class Scaler:
    """Zero mean and unit variance per channel: of each image, or with the training samples'."""

    mean: Float32[np.ndarray, " channel"] | None = None  # None: each image's own
    deviation: Float32[np.ndarray, " channel"] | None = None

    @classmethod
    def of(cls, maps: Maps, normalization: str) -> "Scaler":
        """The scaler of training maps."""
        if choose("normalization", normalization, NORMALIZATIONS) == "image":
            return cls()
        return cls(maps.mean((0, 1, 2)), maps.std((0, 1, 2)))

    def __call__(self, maps: Maps) -> Maps:
        """Scaled maps; a constant channel becomes 0."""
        if self.mean is None or self.deviation is None:
            mean, variance = maps.mean((1, 2), keepdims=True), maps.var((1, 2), keepdims=True)
        else:
            mean, variance = self.mean, self.deviation**2
        power = variance + mean**2
        deviation = np.sqrt(np.where(variance > CONSTANT * power, variance, np.inf))
        return (maps - mean) / deviation


@dataclass(frozen=True)
class Catalog:
    """Named clusters of one layer."""

    layer: str  # a tap
    normalization: str
    scaler: Scaler
    centroids: Float32[np.ndarray, "cluster channel"]
    # Clusters of each class and part (none if its J is too low), and J {split: {class or part: J}}.
    unions: dict[str, list[int]] = field(default_factory=dict)
    iou: dict[str, dict[str, float | None]] = field(default_factory=dict)
    single: dict[str, dict[str, float]] = field(default_factory=dict)  # IoU of the best one cluster
    majority: list[int] = field(default_factory=list)  # most frequent class of each cluster,
    purity: list[float] = field(default_factory=list)  # ... and its share of the cluster

    def label(self, maps: Maps) -> UInt8[np.ndarray, "sample y x"]:
        """The cluster of every pixel of the layer's maps."""
        vectors = self.scaler(maps)
        labels = predict(vectors.reshape(-1, vectors.shape[-1]), self.centroids)
        return labels.astype(np.uint8).reshape(maps.shape[:3])


def read_maps(store: Store, tap: str, split: str, count: int) -> Maps:
    """The first maps of a cached tap, channels last."""
    names = [a.name for a in store.plan.arrays if a.name in (tap, f"{tap}.scale")]
    return decode(
        store.read(split, slice(min(count, store.plan.splits[split])), names), tap
    ).numpy()


def candidates(store: Store, resolutions: Sequence[int]) -> list[str]:
    """The first cached tap of each resolution."""
    found: dict[int, str] = {}
    for array in store.plan.arrays:
        if array.dims[0] == "y":
            found.setdefault(array.shape[0], array.name)
    if missing := [r for r in resolutions if r not in found]:
        raise InputError(
            f"cluster resolution {missing[0]}",
            f"one of the cached taps': {', '.join(map(str, found))}",
            "change edit_style.resolutions, or raise max_tap_resolution",
        )
    return [found[r] for r in resolutions]


def at_size(labels: UInt8[np.ndarray, "sample y x"], size: int) -> np.ndarray:
    """Ids at another size, nearest pixel."""
    at = (np.arange(size) * labels.shape[-1]) // size
    return labels[:, at[:, None], at]


def compare(
    labels: UInt8[np.ndarray, "sample y x"], masks: np.ndarray, clusters: int, classes: int
) -> np.ndarray:
    """Pixels of each cluster and class, at the masks' size."""
    found = at_size(labels, masks.shape[-1])
    return contingency(found, masks[: len(found)], clusters, classes)


def name_clusters(table: np.ndarray, groups: Groups, min_iou: float) -> dict[str, list[int]]:
    """The IoU-optimal union of clusters for each group of classes; empty if J < min_iou."""
    unions = {}
    for name, classes in groups.items():
        inside = table[:, list(classes)].sum(1)
        chosen, iou = best_union(inside, table.sum(1), int(inside.sum()))
        unions[name] = chosen if iou >= min_iou else []
    return unions


def score_unions(
    table: np.ndarray, groups: Groups, unions: Mapping[str, Sequence[int]]
) -> dict[str, float | None]:
    """J of each named union; 0 for a group without a name, None for one that never occurs."""
    found = {}
    for name, classes in groups.items():
        inside = table[:, list(classes)].sum(1)
        iou = union_iou(inside, table.sum(1), unions[name])
        found[name] = None if np.isnan(iou) else round(iou, 4)
    return found


def build_catalog(
    store: Store, masks: Group, groups: Groups, layer: str, count: int, rule: ClusterRule
) -> Catalog:
    """Cluster one layer's maps of training samples and name the clusters; J on every split.

    groups: classes by themselves, and parts made of several.
    """
    num_classes = len(masks.attributes["classes"])
    maps = read_maps(store, layer, "train", rule.cluster_samples)
    scaler = Scaler.of(maps, rule.normalization)
    vectors = scaler(maps).reshape(-1, maps.shape[-1])
    means = SphericalKMeans(count, rule.restarts, seed=rule.seed).fit(vectors)
    catalog = Catalog(layer, rule.normalization, scaler, means.centroids)
    for split in ("train", "validation", "test"):
        size = rule.cluster_samples if split == "train" else rule.held_out
        maps = maps if split == "train" else read_maps(store, layer, split, size)
        known = masks.read(split, "masks", slice(size))
        table = compare(catalog.label(maps), known, count, num_classes)
        if split == "train":
            catalog.unions.update(name_clusters(table, groups, rule.min_iou))
            majority, purity = majority_class(table)
            catalog.majority.extend(majority.tolist())
            catalog.purity.extend(purity.round(4).tolist())
        catalog.iou[split] = score_unions(table, groups, catalog.unions)
        single = cluster_iou(table).max(0)
        ids = {name: classes[0] for name, classes in groups.items() if len(classes) == 1}
        catalog.single[split] = {name: round(float(single[i]), 4) for name, i in ids.items()}
    return catalog


def write_catalog(
    folder: Path,
    catalog: Catalog,
    contributions: Mapping[str, Float[np.ndarray, "cluster channel"]],  # M of each style
    facts: dict,
) -> None:
    """Write catalog.npz (centroids, M by style) and catalog.json (layer, names, J): plain data."""
    arrays = {"centroids": catalog.centroids}
    arrays |= {k: values for k, values in vars(catalog.scaler).items() if values is not None}
    arrays |= {f"contributions/{name}": m.astype(np.float32) for name, m in contributions.items()}
    write_arrays(folder / "catalog.npz", arrays)
    write_json(folder / "catalog.json", {k: getattr(catalog, k) for k in NAMED} | facts)


def read_catalog(folder: Path) -> tuple[Catalog, dict[str, np.ndarray]]:
    """A catalog that `write_catalog` wrote, and its contributions."""
    facts = read_json(folder / "catalog.json")
    with np.load(folder / "catalog.npz", allow_pickle=False) as file:
        arrays = dict(file)
    scaler = Scaler(arrays.get("mean"), arrays.get("deviation"))
    named = {k: facts[k] for k in NAMED}
    catalog = Catalog(scaler=scaler, centroids=arrays["centroids"], **named)
    prefix = "contributions/"
    return catalog, {k.removeprefix(prefix): m for k, m in arrays.items() if k.startswith(prefix)}


def mean_iou(catalog: Catalog, names: Sequence[str], split: str = "validation") -> float:
    """Mean J over the named classes that occur."""
    found = [catalog.iou[split][name] for name in names]
    return float(np.mean([iou for iou in found if iou is not None]))
