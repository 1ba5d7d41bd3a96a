"""Latents: one seed per sample, so batch size and worker count cannot change a byte."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float32, Int64

from pipeline.runtime.errors import InputError

SPLITS = ("train", "validation", "test", "pool")


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
