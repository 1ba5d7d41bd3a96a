"""The generator of a study, its taps, and the masks that stand for an annotator."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pipeline.data.arrays import Group
from pipeline.data.features import Source
from pipeline.generators.taps import Tap, select
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import sha256


@dataclass(frozen=True)
class Study:
    """The generator, its taps, and the masks that stand for the annotator."""

    source: Source
    masks: str  # zarr group of masks
    align_corners: bool = False
    max_tap_resolution: int | None = None  # px of the taps that are read; None: all
    # Rows of the pool that people annotated: masks with UNLABELED pixels, instead of `masks`.
    annotations: Mapping[int, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def taps(self) -> tuple[Tap, ...]:
        """Taps of the generator, up to max_tap_resolution."""
        return select(self.source.generator().taps, self.max_tap_resolution)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the masks' classes."""
        return tuple(Group(self.masks).attributes["classes"])

    @cached_property
    def facts(self) -> dict:
        """What identifies the generator, its samples and their masks; the same on every machine."""
        return {
            "generator": sha256(self.source.checkpoint)[:16],
            "ws": Group(self.source.latents).digest("ws"),
            "masks": Group(self.masks).digest("masks"),
            "classes": list(self.classes),
            "compute": self.source.compute,
            "taps": [vars(tap) for tap in self.taps],
            "align_corners": self.align_corners,
        }

    @property
    def pool(self) -> int:
        """Samples in the pool; InputError if latents and masks do not belong together."""
        sizes = Group(self.source.latents).splits, Group(self.masks).splits
        if sizes[0] != sizes[1]:
            raise InputError(
                f"masks of {sizes[1]} samples and latents of {sizes[0]}",
                "one study's",
                "name the masks and the latents of one study",
            )
        return sizes[0].get("pool", 0)


def open_study(source: Source, masks: str, facts: Mapping) -> Study:
    """A study by the facts of its pixel store; InputError if that is another study's."""
    taps = [vars(tap) for tap in source.generator().taps]
    digest = Group(masks).digest("masks")
    if facts["taps"] != taps or facts["masks"] != digest:
        raise InputError(
            f"a pixel store of {len(facts['taps'])} taps and of masks {facts['masks']}",
            f"{len(taps)} taps and masks {digest}",
            "name the pixel store, the masks and the generator of one study",
        )
    return Study(source, masks, facts["align_corners"])
