"""Small arrays as DVC outs: latents, images and masks, named `<split>/<name>`, in zarr groups.

A group is one file, `<name>.zarr.zip`: DVC would walk a folder, and look all its files up, once for
each stage that reads it, whether or not there is anything to do.
"""

import hashlib
import math
import shutil
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from pipeline.runtime.errors import InputError, reading
from pipeline.runtime.files import atomic

ROWS_PER_CHUNK, BYTES_PER_CHUNK = 1024, 2**21  # at most; zarr holds a chunk several times over
SIZED = (".masks", ".images")  # arrays whose last axis is the label size


@runtime_checkable
class Sliceable(Protocol):
    """What write_group reads an array by: in memory, or a few rows at a time from elsewhere."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


def write_group(path: str | Path, arrays: Mapping[str, Sliceable], attributes: dict) -> None:
    """Write arrays {`split/name`: [N, ...]} and attributes as one zipped zarr group, atomically.

    Rows are read and written a chunk at a time, so an array need not fit into memory. The same
    arrays give the same bytes: zarr's own zip store would note the time.
    """
    import zarr

    path = Path(path)
    folder = path.with_name(path.name + ".unpacked.partial")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    root = zarr.create_group(str(folder), attributes=attributes)
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
            compressors="auto" if masks else None,
        )
        for start in range(0, num, step):
            array[start : start + step] = values[start : start + step]
    with atomic(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix())  # its date is 1980
            archive.writestr(entry, file.read_bytes())  # as it is: zarr compresses what is worth it
    shutil.rmtree(folder)


@cache  # once per process
def _verify(path: Path, size: int, time_ns: int) -> None:
    """Raise an error for a zip with a member whose bytes, or whose name, were changed.

    zarr takes a chunk that it does not find for one of zeros, which it would not have written.
    """
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"{damaged} is damaged")


class Group:
    """A zarr group of small arrays, read by split and name."""

    def __init__(self, path: str | Path):
        import zarr

        self.path = Path(path)
        if not zipfile.is_zipfile(self.path):
            what = f"{path}, which is damaged" if self.path.exists() else f"no zarr group at {path}"
            raise InputError(what, "a zarr group in a zip", "delete it and run `dvc repro`")
        with self._reading():
            facts = self.path.stat()
            _verify(self.path, facts.st_size, facts.st_mtime_ns)
            self._root = zarr.open_group(zarr.storage.ZipStore(self.path), mode="r")
            self.attributes: dict[str, Any] = dict(self._root.attrs)

    @property
    def splits(self) -> dict[str, int]:
        """Samples per split."""
        return {name.split(".")[0]: array.shape[0] for name, array in sorted(self._root.arrays())}

    @property
    def label_size(self) -> int:
        """Side of the group's masks or images, px."""
        sizes = [x.shape[-1] for name, x in self._root.arrays() if name.endswith(SIZED)]
        if not sizes:
            raise InputError(f"{self.path} without masks", "masks or images", "name their group")
        return sizes[0]

    def read(self, split: str, name: str, rows: slice = slice(None)) -> np.ndarray:
        """The rows of one array."""
        import zarr

        with self._reading():
            array = self._root.get(f"{split}.{name}")
            if not isinstance(array, zarr.Array):
                raise InputError(
                    f"{split}.{name} of {self.path}",
                    f"splits {', '.join(self.splits)}",
                    "name a split that this study samples",
                )
            return np.asarray(array[rows])

    def _reading(self) -> AbstractContextManager[None]:
        return reading(self.path, "the group as it was written", "delete it and run `dvc repro`")

    def digest(self, name: str) -> str:
        """16 hex digits over the bytes of `<split>/<name>` of all splits."""
        digest = hashlib.sha256()
        for split in sorted(self.splits):
            values = self.read(split, name)
            digest.update(f"{split}{values.shape}{values.dtype}".encode() + values.tobytes())
        return digest.hexdigest()[:16]
