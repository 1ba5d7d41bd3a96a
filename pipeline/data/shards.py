"""Files of shards: written and hashed batch by batch, read by memory map, verified once."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numpy as np

from pipeline.data.plans import Array
from pipeline.runtime.errors import Damaged
from pipeline.runtime.files import sha256, write_json

VERIFIED: set[tuple[str, int]] = set()  # (file, chunk) that this process has found undamaged


@dataclass(frozen=True)
class Record:
    """What commits a shard: check sums of its files, by path inside the store."""

    sha256: Mapping[str, str]
    crc32c: Mapping[str, Sequence[int]] = field(default_factory=dict)  # of every chunk of a file

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Read a record; OSError or ValueError if there is none, or it is damaged."""
        values = json.loads(path.read_text())
        if not isinstance(values, dict):
            raise ValueError(f"{path} is no record")
        # Stores of earlier versions have the sha256 alone.
        return cls(**values) if values.keys() == {"sha256", "crc32c"} else cls(values)

    def write(self, path: Path) -> None:
        """Write it, atomically."""
        write_json(path, {"sha256": self.sha256, "crc32c": self.crc32c}, sync=False)


@dataclass(frozen=True)
class Rows:
    """One array [size, ...] of a split; reading it maps files and copies no more than asked for.

    Our arrays are not compressed, so a shard's file starts with its samples, end to end.
    """

    array: Array
    folder: Path  # of the zarr array
    size: int
    samples_per_shard: int
    samples_per_chunk: int
    record: Callable[[int], Path]  # the file that commits a shard

    @property
    def shape(self) -> tuple[int, ...]:
        """Samples first."""
        return (self.size, *self.array.shape)

    @property
    def dtype(self) -> np.dtype:
        """As stored."""
        return np.dtype(self.array.dtype)

    def view(self, row: int) -> np.ndarray:
        """One sample, memory-mapped without a copy.

        The first look at a chunk verifies it; raises Damaged, and drops the shard, if its bytes are
        not those that were written.
        """
        if not 0 <= row < self.size:
            raise IndexError(f"sample {row} of {self.size}")
        shard, inside = divmod(row, self.samples_per_shard)
        # A string, because numpy resolves every link of a Path.
        path = str(shard_file(self.folder, self.array, shard))
        chunk = inside // self.samples_per_chunk
        if (path, chunk) not in VERIFIED:
            self._verify(path, shard, chunk)
            VERIFIED.add((path, chunk))
        start = inside * self.array.bytes_per_sample
        # Copy on write, since torch wants writable memory.
        return np.memmap(path, self.dtype, "c", start, self.array.shape).view(np.ndarray)

    def _verify(self, path: str, shard: int, chunk: int) -> None:
        record = Record.read(self.record(shard))
        name = str(Path(path).relative_to(self.folder.parents[1]))
        if name in record.crc32c:
            size = self.samples_per_chunk * self.array.bytes_per_sample
            try:
                content: np.ndarray = np.memmap(path, np.uint8, "r", chunk * size, (size,))
            except (OSError, ValueError):  # cut off
                content = np.empty(0, np.uint8)
            whole = google_crc32c.value(content) == record.crc32c[name][chunk]
        else:
            whole = sha256(path) == record.sha256[name]
        if not whole:
            self.record(shard).unlink(missing_ok=True)
            raise Damaged(
                f"damaged bytes in {path}",
                "those that were written",
                "run again: the shard counts as missing now, and is made again",
            )

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
        self.crc32c: list[int] = []  # of every chunk

    def append(self, values: np.ndarray) -> None:
        """Write the next samples [N, ...]."""
        for i in range(len(values)):
            if self.samples % self._per_chunk == 0:
                self.crc32c.append(0)
            self.crc32c[-1] = google_crc32c.extend(self.crc32c[-1], values[i : i + 1])
            self.samples += 1
        self._put(values.data)

    def finish(self, sample_bytes: int) -> str:
        """Fill the last chunk up and write the index; returns the file's sha256."""
        used, size = -(-self.samples // self._per_chunk), self._per_chunk * sample_bytes
        filling = bytes(used * size - self.samples * sample_bytes)
        if filling:
            self.crc32c[-1] = google_crc32c.extend(self.crc32c[-1], filling)
        self._put(filling)
        index = np.full((self._num_chunks, 2), 2**64 - 1, "<u8")
        index[:used] = [(chunk * size, size) for chunk in range(used)]
        self._put(index.data)
        self._put(google_crc32c.value(index.tobytes()).to_bytes(4, "little"))
        return self._digest.hexdigest()

    def _put(self, part: memoryview | bytes) -> None:
        self._digest.update(part)
        self._file.write(part)
