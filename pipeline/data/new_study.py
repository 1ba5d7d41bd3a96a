"""The entry of params.yaml for a study of a new checkpoint, with sizes that fit a machine."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.data.features import plan_features, plan_pixels
from pipeline.data.inspection import PIXELS_PER_SAMPLE
from pipeline.data.plans import GIB
from pipeline.generators.taps import Tap
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import store_root

TRAIN = (2048, 1024, 512, 256, 128, 64)  # samples to choose from, a quarter of them to validate
POOL = 80  # 16 shots in 5 disjoint draws, as params.yaml says
ENOUGH = 256  # training samples after which finer taps are worth more than further samples
MINUTES = 10.0  # of a pass over all samples, at most
FITTED_PIXELS = 131072  # at most, of the LSE's fit
FINEST = 128  # px of cached taps, and of taps that edits read, at most


@dataclass(frozen=True)
class Limits:
    """What a study may take."""

    features_gib: float  # of the feature store
    pixels_gib: float  # of the pixel store
    memory_gib: float


def limits(params: Mapping) -> Limits:
    """Those of this machine: the parsed params.yaml's, and shares of the disk that is free."""
    root = store_root()
    while not root.exists():
        root = root.parent
    free = shutil.disk_usage(root).free / GIB
    return Limits(
        min(params.get("cache_features", {}).get("max_gib", 8), free / 4),
        min(params.get("cache_pixels", {}).get("max_gib", 4), free / 8),
        os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB,
    )


@dataclass(frozen=True)
class Sizes:
    """Of a study; sides in px."""

    train: int
    label_size: int
    max_tap_resolution: int
    stored: str  # of features and of pixels

    @property
    def splits(self) -> dict[str, int]:
        """Samples of each split."""
        return {
            "train": self.train,
            "validation": self.train // 4,
            "test": self.train // 2,
            "pool": POOL,
        }


def choose_sizes(found: Mapping, limits: Limits) -> Sizes:
    """Sizes for a checkpoint, given its facts as `inspect_checkpoint` returns them.

    The most samples up to ENOUGH, then the finest cached taps, then more samples.
    Raises InputError where not even the smallest study fits.
    """
    label_size = min(found["resolution"], 256)
    sides = {tap["shape"][1] for tap in found["taps"]}
    sides = {side for side in sides if side <= min(label_size // 2, FINEST)} or {min(sides)}
    fitting = [
        sizes
        for train in TRAIN
        for side in sides
        if _fits(sizes := Sizes(train, label_size, side, "int8"), found, limits)
    ]
    if not fitting:
        raise InputError(
            f"a generator of which {sum(Sizes(TRAIN[-1], 0, 0, '').splits.values())} samples do "
            f"not fit {limits.features_gib:.1f} GiB of disk, {limits.memory_gib:.1f} GiB of "
            f"memory and {MINUTES:.0f} minutes for a pass",
            "one that fits",
            "write the entry by hand, as docs/studies.md shows, or use a larger machine",
        )
    best = max(fitting, key=lambda s: (min(s.train, ENOUGH), s.max_tap_resolution, s.train))
    exact = Sizes(best.train, label_size, best.max_tap_resolution, "float16")
    share = Limits(limits.features_gib / 4, limits.pixels_gib / 4, limits.memory_gib)
    return exact if _fits(exact, found, share) else best


def _fits(sizes: Sizes, found: Mapping, limits: Limits) -> bool:
    facts = {"pixels_per_sample": PIXELS_PER_SAMPLE}
    taps = [Tap(t["name"], "", *t["shape"][:2]) for t in found["taps"]]
    cached = [tap for tap in taps if tap.resolution <= sizes.max_tap_resolution]
    plans = (
        plan_features({}, cached, sizes.stored, sizes.label_size, sizes.splits, 1),
        plan_pixels(facts, found["channels"], sizes.stored, sizes.splits, 1),
    )
    pixels = min(FITTED_PIXELS, sizes.train * PIXELS_PER_SAMPLE)
    minutes = sum(sizes.splits.values()) * found["trial"]["seconds_per_sample"] / 60
    return (
        plans[0].bytes <= limits.features_gib * GIB
        and plans[1].bytes <= limits.pixels_gib * GIB
        # Columns in bfloat16, and as much again for two stages beside the fit.
        and 2 * 2 * pixels * found["channels"] <= limits.memory_gib * GIB / 2
        and minutes <= MINUTES
    )


def entry(name: str, sha256: str, found: Mapping, class_idx: int | None, sizes: Sizes) -> str:
    """The lines to paste below `studies:`. Raises InputError where `name` cannot be a key."""
    if not re.fullmatch(r"[A-Za-z0-9_]+", name):
        raise InputError(
            f"study {name!r}", "letters, digits and underscores", "give it another name"
        )
    label, of_class = sizes.label_size, "" if class_idx is None else f", class_idx: {class_idx}"
    stored = "" if sizes.stored == "int8" else f"stored: {sizes.stored}"
    small = f"max_tap_resolution: {label // 2}, mask_size: {label}" if label < FINEST else ""
    splits = ", ".join(f"{split}: {count}" for split, count in sizes.splits.items())
    return f"""\
  {name}:  # {found["family"]}, {found["resolution"]} px
    load: {{file: {json.dumps(found["file"])}, sha256: {sha256}{of_class}}}
    teacher: checkpoints/face-unet.safetensors  # of faces; docs/teachers.md names others
    judge: checkpoints/face-pyramid.safetensors
    labels: labels/faces15.yaml
    labels_full: labels/faces19.yaml
    sample: {{{splits}}}
    features: {{label_size: {label}, max_tap_resolution: {sizes.max_tap_resolution}\
{", " * bool(stored)}{stored}}}
    annotations: annotations/none
    pixels: {{{stored}}}
    geometry: {{}}
    loop_extractor: {"lse_coarse" if found["resolution"] > 256 else "lse"}
    scs: {{}}
    edits: {{}}  # those of faces; others: `kinds`
    directions: {{{small}}}"""
