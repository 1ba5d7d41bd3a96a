"""Cached feature maps of single samples with their masks, as training reads them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.data.arrays import Group
from pipeline.data.stores import Store
from pipeline.generators.taps import Tap
from pipeline.runtime.errors import InputError


@dataclass(frozen=True)
class Sample:
    """One cached sample: int8 or float16 taps [C, H, W], their scales [C] or None, and the mask."""

    taps: list[Tensor]
    scales: list[Tensor | None]
    mask: Tensor


class CachedSamples:
    """Samples of a split of a feature store, with their masks, on a device."""

    def __init__(self, store: Store, masks: str, split: str, taps: Sequence[Tap], device: str):
        self.store, self.split, self.taps, self.device = store, split, tuple(taps), device
        self.masks = Group(masks).read(split, "masks")
        self.names = [tap.name for tap in taps]
        dims = {array.name: array.dims for array in store.plan.arrays}
        self.scaled = f"{self.names[0]}.scale" in dims
        if (found := dims[self.names[0]]) != ("y", "x", "channel"):
            raise InputError(
                f"maps of {self.names[0]} as {', '.join(found)}",
                "y, x, channel",
                "run `dvc repro` to make the store again",
            )

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, row: int) -> Sample:
        def tensor(name: str) -> Tensor:
            return torch.from_numpy(self.store.view(self.split, name, row)).to(self.device)

        return Sample(
            # Stored as [H, W, C]; the permuted view is channels-last and copies nothing.
            [tensor(name).permute(2, 0, 1) for name in self.names],
            [tensor(f"{name}.scale") if self.scaled else None for name in self.names],
            torch.from_numpy(self.masks[row]).long().to(self.device),
        )
