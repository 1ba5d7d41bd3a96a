"""Latents: one seed per sample, so batch size and worker count cannot change a byte."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from pipeline.runtime.errors import InputError

SPLITS = ("train", "validation", "test", "pool")


@dataclass(frozen=True)
class LatentOptions:
    """Section `sample` of a study: how many samples, of which seeds."""

    train: int  # samples of the training split
    validation: int  # samples of the validation split
    test: int  # samples of the test split
    pool: int  # samples for few-shot annotation
    seed: int  # study's seed; every sample has its own seed, in blocks of a million per split
    truncation_psi: float  # w = w_avg + psi (w - w_avg) on all layers; 1: no truncation

    @property
    def sizes(self) -> dict[str, int]:
        """Samples per split."""
        return {split: getattr(self, split) for split in SPLITS}


def split_seeds(
    sizes: Mapping[str, int], first_seed: int
) -> dict[str, Int64[np.ndarray, " sample"]]:
    """Disjoint seeds per split. Growing one split never changes the seeds of another.

    Each split owns a block of 1,000,000 seeds from first_seed * 10,000,000 on.
    """
    seeds = {}
    for block, split in enumerate(SPLITS):
        size = sizes.get(split, 0)
        if not 0 <= size <= 1_000_000:
            raise InputError(f"{size} samples for {split}", "0 to 1,000,000", f"change {split}")
        start = first_seed * 10_000_000 + block * 1_000_000
        seeds[split] = np.arange(start, start + size, dtype=np.int64)
    return seeds


def sample_z(
    seeds: Sequence[int] | Int64[np.ndarray, " sample"], z_dim: int
) -> Float32[np.ndarray, "sample z_dim"]:
    """Z ~ N(0, I), row i drawn from seeds[i] alone (PCG64)."""
    rows = [np.random.default_rng(int(s)).standard_normal(z_dim, np.float32) for s in seeds]
    return np.stack(rows) if rows else np.zeros((0, z_dim), np.float32)
