"""Small arrays as DVC outs: latents, images and masks in zarr groups `<split>/<name>`."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.errors import InputError


def write_group(path: str | Path, arrays: Mapping[str, np.ndarray], attributes: dict) -> None:
    """Write arrays {`split/name`: [N, ...]} and attributes as one zarr group, atomically."""
    import zarr

    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    root = zarr.create_group(str(partial), attributes=attributes)
    for name, values in arrays.items():
        chunk = (min(64, len(values)) or 1, *values.shape[1:])
        compressed = {} if values.dtype == np.uint8 and values.ndim == 3 else {"compressors": None}
        root.create_array(name, data=values, chunks=chunk, **compressed)
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
        return {
            split: next(iter(group.arrays()))[1].shape[0]
            for split, group in sorted(self._root.groups())
        }

    def read(self, split: str, name: str, rows: slice = slice(None)) -> np.ndarray:
        """The rows of one array."""
        if f"{split}/{name}" not in self._root:
            raise InputError(
                f"{split}/{name} of {self.path}",
                f"splits {', '.join(self.splits)}",
                "name a split that this study samples",
            )
        return np.asarray(self._root[f"{split}/{name}"][rows])

    def digest(self, name: str) -> str:
        """16 hex digits over the bytes of `<split>/<name>` of all splits."""
        digest = hashlib.sha256()
        for split in sorted(self.splits):
            values = self.read(split, name)
            digest.update(f"{split}{values.shape}{values.dtype}".encode() + values.tobytes())
        return digest.hexdigest()[:16]
