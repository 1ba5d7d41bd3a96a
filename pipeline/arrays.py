"""Small arrays as DVC outs: latents, images and masks, named `<split>/<name>`, in zarr groups."""

import hashlib
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from pipeline.errors import InputError

ROWS_PER_CHUNK, BYTES_PER_CHUNK = 1024, 2**21  # at most; zarr holds a chunk several times over
# DVC walks all folders and looks all files up: no folder a chunk, and none a split: its arrays are
# `<split>.<name>`.
FLAT = {"name": "default", "separator": "."}


@runtime_checkable
class Sliceable(Protocol):
    """What write_group reads an array by: in memory, or a few rows at a time from elsewhere."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def __getitem__(self, rows: slice) -> np.ndarray: ...


def write_group(path: str | Path, arrays: Mapping[str, Sliceable], attributes: dict) -> None:
    """Write arrays {`split/name`: [N, ...]} and attributes as one zarr group, atomically.

    Rows are read and written a chunk at a time, so an array need not fit into memory.
    """
    import zarr

    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    root = zarr.create_group(str(partial), attributes=attributes)
    for name, values in arrays.items():
        num, *cells = values.shape
        row_bytes = values.dtype.itemsize * math.prod(cells)
        step = max(1, min(ROWS_PER_CHUNK, num, BYTES_PER_CHUNK // max(1, row_bytes)))
        masks = values.dtype == np.uint8 and len(cells) == 2  # the only arrays worth compressing
        array = root.create_array(
            name.replace("/", "."),
            shape=values.shape,
            dtype=values.dtype,
            chunks=(step, *cells),
            chunk_key_encoding=FLAT,
            **({} if masks else {"compressors": None}),
        )
        for start in range(0, num, step):
            array[start : start + step] = values[start : start + step]
    shutil.rmtree(path, ignore_errors=True)
    os.replace(partial, path)


class Group:
    """A zarr group of small arrays, read by split and name."""

    def __init__(self, path: str | Path):
        import zarr

        self.path = Path(path)
        if not (self.path / "zarr.json").exists():
            raise InputError(f"no zarr group at {path}", "one", "run `dvc repro` to make it")
        self._root = zarr.open_group(str(path), mode="r")
        self.attributes = dict(self._root.attrs)

    @property
    def splits(self) -> dict[str, int]:
        """Samples per split."""
        return {name.split(".")[0]: array.shape[0] for name, array in sorted(self._root.arrays())}

    def read(self, split: str, name: str, rows: slice = slice(None)) -> np.ndarray:
        """The rows of one array."""
        if f"{split}.{name}" not in self._root:
            raise InputError(
                f"{split}.{name} of {self.path}",
                f"splits {', '.join(self.splits)}",
                "name a split that this study samples",
            )
        return np.asarray(self._root[f"{split}.{name}"][rows])

    def digest(self, name: str) -> str:
        """16 hex digits over the bytes of `<split>/<name>` of all splits."""
        digest = hashlib.sha256()
        for split in sorted(self.splits):
            values = self.read(split, name)
            digest.update(f"{split}{values.shape}{values.dtype}".encode() + values.tobytes())
        return digest.hexdigest()[:16]
