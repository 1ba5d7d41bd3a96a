"""Files of shards: written and hashed batch by batch, read by memory map."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numpy as np

from pipeline.data.plans import Array


@dataclass(frozen=True)
class Rows:
    """One array [size, ...] of a split; reading it maps files and copies no more than asked for.

    Our arrays are not compressed, so a shard's file starts with its samples, end to end.
    """

    array: Array
    folder: Path  # of the zarr array
    size: int
    samples_per_shard: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Samples first."""
        return (self.size, *self.array.shape)

    @property
    def dtype(self) -> np.dtype:
        """As stored."""
        return np.dtype(self.array.dtype)

    def view(self, row: int) -> np.ndarray:
        """One sample, memory-mapped: no copy, and no other sample is read."""
        if not 0 <= row < self.size:
            raise IndexError(f"sample {row} of {self.size}")
        shard, inside = divmod(row, self.samples_per_shard)
        # A string, because numpy resolves every link of a Path.
        path = str(shard_file(self.folder, self.array, shard))
        start = inside * self.array.bytes_per_sample
        # Copy on write, since torch wants writable memory.
        return np.memmap(path, self.dtype, "c", start, self.array.shape).view(np.ndarray)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """A copy of some samples."""
        wanted = range(self.size)[rows]
        values = np.empty((len(wanted), *self.array.shape), self.dtype)
        for value, row in zip(values, wanted, strict=True):
            value[:] = self.view(row)
        return values


def shard_file(folder: Path, array: Array, index: int) -> Path:
    """The file of a shard; `folder` is the array's."""
    return folder / "c" / str(index) / "/".join("0" * len(array.shape))


class ShardFile:
    """A shard of `num_chunks` chunks, written a few samples at a time and hashed on the way.

    The bytes are those of zarr's sharding codec (its v3 specification): the chunks end to end, the
    last one filled up with zeros; (offset, bytes) of every chunk as uint64, all ones for chunks
    past the array's end; the crc32c of these. zarr itself would want the whole shard at once and
    copy it twice, and the hash would have to read it again: the cache benchmark prints both times.
    """

    def __init__(self, file: BinaryIO, per_chunk: int, num_chunks: int):
        self._file, self._digest = file, hashlib.sha256()
        self._per_chunk, self._num_chunks = per_chunk, num_chunks
        self.samples = 0

    def append(self, values: np.ndarray) -> None:
        """Write the next samples [N, ...]."""
        self.samples += len(values)
        self._put(values.data)

    def finish(self, sample_bytes: int) -> str:
        """Fill the last chunk up and write the index; returns the file's sha256."""
        used, size = -(-self.samples // self._per_chunk), self._per_chunk * sample_bytes
        self._put(bytes(used * size - self.samples * sample_bytes))
        index = np.full((self._num_chunks, 2), 2**64 - 1, "<u8")
        index[:used] = [(chunk * size, size) for chunk in range(used)]
        self._put(index.data)
        self._put(google_crc32c.value(index.tobytes()).to_bytes(4, "little"))
        return self._digest.hexdigest()

    def _put(self, part: memoryview | bytes) -> None:
        self._digest.update(part)
        self._file.write(part)
