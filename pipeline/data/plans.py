"""What a feature store will hold: its arrays, splits and shards, and what they take on disk."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from mmap import mmap

import numpy as np

from pipeline.runtime.errors import InputError
from pipeline.runtime.files import fingerprint, store_root
from pipeline.runtime.progress import say

GIB = 2**30


@dataclass(frozen=True)
class Array:
    """One array of a store: its shape is that of a single sample."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    dims: tuple[str, ...]

    @property
    def bytes_per_sample(self) -> int:
        """Bytes of one sample, uncompressed, as it lies on disk."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Shard:
    """Samples [start, stop) of a split: the unit of work, of writing and of repair."""

    split: str
    index: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """`<split>/<index>`, as in the manifest."""
        return f"{self.split}/{self.index}"


@dataclass(frozen=True)
class Plan:
    """Everything that a store will hold; its fingerprint names the folder."""

    kind: str
    facts: dict  # parameters, latents, checkpoint hash, version: whatever determines the values
    arrays: tuple[Array, ...]
    splits: dict[str, int]
    samples_per_shard: int

    @property
    def fingerprint(self) -> str:
        """16 hex digits over facts, arrays, splits and shard size."""
        return fingerprint(asdict(self))

    @property
    def bytes_per_sample(self) -> int:
        """Bytes of one sample over all arrays."""
        return sum(array.bytes_per_sample for array in self.arrays)

    @property
    def bytes(self) -> int:
        """Bytes of the whole store."""
        return self.bytes_per_sample * sum(self.splits.values())

    def empty(self, samples: int) -> dict[str, np.ndarray]:
        """Arrays {name: [samples, ...]} to be filled: a part of what `Store.write_parts` takes.

        In memory of their own, given back at once: in the heap they would split the room that
        feature maps need, shard after shard, and the peak would grow.
        """
        return {
            a.name: np.frombuffer(mmap(-1, samples * a.bytes_per_sample), a.dtype).reshape(
                samples, *a.shape
            )
            for a in self.arrays
        }

    def shards(self) -> list[Shard]:
        """All shards, split by split."""
        step = self.samples_per_shard
        return [
            Shard(split, index, start, min(start + step, size))
            for split, size in self.splits.items()
            for index, start in enumerate(range(0, size, step))
        ]

    def check(self, max_gib: float, seconds: float, missing: Sequence[Shard]) -> None:
        """Print bytes, seconds and peak disk before any work; refuse what does not fit."""
        samples = sum(shard.stop - shard.start for shard in missing)
        wanted = self.bytes_per_sample * samples
        say(
            f"plan: {self.kind} {self.fingerprint}: {sum(self.splits.values())} samples x "
            f"{self.bytes_per_sample / 1e6:.2f} MB = {self.bytes / GIB:.2f} GiB on disk at peak; "
            f"{len(missing)} shards to write, {wanted / GIB:.2f} GiB, about {seconds:.0f} s"
        )
        ways = "use fewer samples, a lower max_tap_resolution, or streaming (cache nothing)"
        if self.bytes > max_gib * GIB:
            raise InputError(
                f"a plan of {self.bytes / GIB:.2f} GiB",
                f"at most max_gib = {max_gib} GiB",
                f"{ways}; or raise max_gib",
            )
        root = store_root()
        root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(root).free
        if wanted > 0.95 * free:
            raise InputError(
                f"a disk with {free / GIB:.2f} GiB free at {root}",
                f"{wanted / GIB:.2f} GiB and a twentieth to spare",
                f"free some space, set PIPELINE_STORE to another disk, or {ways}",
            )
