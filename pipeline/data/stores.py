"""Feature stores: big arrays outside DVC, named by a fingerprint, described by a small manifest.

A store is a zarr group of one array per tap and split. Only the sample axis is chunked; a shard is
written whole, then committed by a record of its files' sha256. What is not committed is missing.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.data.plans import Array, Plan, Shard
from pipeline.data.shards import Record, Rows, ShardFile, shard_file
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import atomic, read_json, sha256, store_root, write_json
from pipeline.runtime.lifelines import RUN
from pipeline.runtime.progress import say

SAMPLES_PER_CHUNK = 4


class Store:
    """The arrays of one plan. Writers hold the lock; a shard counts once it is committed."""

    def __init__(self, plan: Plan, root: Path | None = None):
        self.plan = plan
        self.path = (root or store_root()) / plan.kind / plan.fingerprint

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other writers out, also those that a killed `dvc` left behind."""
        from filelock import FileLock, Timeout

        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{self.path}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"waiting for another process that writes {self.path}")
            lock.acquire()
        try:
            for leftover in self.path.glob("**/*.partial"):
                leftover.unlink()
            yield
        finally:
            lock.release()

    def create(self) -> None:
        """Lay out the zarr group; existing shards stay."""
        import zarr

        if (self.path / "zarr.json").exists():
            return
        shutil.rmtree(self.path, ignore_errors=True)
        partial = self.path.with_name(self.path.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        root = zarr.create_group(str(partial), attributes={"facts": self.plan.facts})
        for split, size in self.plan.splits.items():
            group = root.create_group(split)
            for array in self.plan.arrays:
                group.create_array(
                    array.name,
                    shape=(size, *array.shape),
                    dtype=array.dtype,
                    chunks=(self._samples_per_chunk, *array.shape),
                    shards=(self._samples_per_shard, *array.shape),
                    compressors=None,
                    dimension_names=("sample", *array.dims),
                )
        os.replace(partial, self.path)

    @property
    def _samples_per_chunk(self) -> int:
        return min(SAMPLES_PER_CHUNK, self.plan.samples_per_shard)

    @property
    def _samples_per_shard(self) -> int:
        chunk = self._samples_per_chunk
        return -(-self.plan.samples_per_shard // chunk) * chunk

    def write(self, shard: Shard, arrays: Mapping[str, np.ndarray]) -> None:
        """Write one whole shard [stop - start, ...] of every array, then commit it."""
        self.write_parts(shard, [arrays])

    def write_parts(self, shard: Shard, parts: Iterable[Mapping[str, np.ndarray]]) -> None:
        """Write a shard from its samples in order, some of every array a part, then commit it.

        A part is written and hashed before the next is asked for, while the caches hold it.
        """
        self.drop(shard)
        chunk, files, hashes, checks = self._samples_per_chunk, {}, {}, {}
        with ExitStack() as stack:
            for array in self.plan.arrays:
                path = shard_file(self.path / shard.split / array.name, array, shard.index)
                file = open(stack.enter_context(atomic(path, sync=False)), "wb")  # noqa: SIM115
                writer = ShardFile(file, chunk, self._samples_per_shard // chunk)
                files[array] = path, writer
                stack.enter_context(file)
            for part in parts:
                for array, (_, writer) in files.items():
                    values = part[array.name]
                    assert values.shape[1:] == array.shape, array.name
                    assert values.dtype == array.dtype and values.flags.c_contiguous, array.name
                    writer.append(values)
            for array, (path, writer) in files.items():
                assert writer.samples == shard.stop - shard.start, array.name
                name = str(path.relative_to(self.path))
                hashes[name] = writer.finish(array.bytes_per_sample)
                checks[name] = writer.crc32c
        Record(hashes, checks).write(self._record(shard.split, shard.index))

    def drop(self, shard: Shard) -> None:
        """Forget a shard: first its record, so that no record ever names a missing file."""
        self._record(shard.split, shard.index).unlink(missing_ok=True)
        for path in self._files(shard):
            path.unlink(missing_ok=True)

    def missing(self) -> list[Shard]:
        """Shards that are not committed, or whose files are gone."""
        return [s for s in self.plan.shards() if not self._complete(s)]

    def damaged(self) -> list[Shard]:
        """Committed shards whose bytes are not those that were written: re-reads everything."""
        result = []
        for shard in self.plan.shards():
            if self._complete(shard):
                hashes = self.hashes(shard)
                if any(sha256(self.path / name) != value for name, value in hashes.items()):
                    result.append(shard)
        return result

    def hashes(self, shard: Shard) -> dict[str, str]:
        """sha256 of every file of a committed shard, by path inside the store."""
        return dict(Record.read(self._record(shard.split, shard.index)).sha256)

    def rows(self, split: str, name: str) -> Rows:
        """One array of a split, to be read in pieces; InputError for unknown names."""
        if split not in self.plan.splits:
            raise InputError(
                f"split {split!r}", f"one of {', '.join(self.plan.splits)}", "name a split"
            )
        arrays = {array.name: array for array in self.plan.arrays}
        if name not in arrays:
            raise InputError(f"array {name!r}", f"one of {', '.join(arrays)}", "name a cached tap")
        size, folder = self.plan.splits[split], self.path / split / name
        sizes = self._samples_per_shard, self._samples_per_chunk
        return Rows(arrays[name], folder, size, *sizes, partial(self._record, split))

    def read(self, split: str, rows: slice | int, names: Sequence[str] | None = None) -> dict:
        """Arrays {name: [rows, ...]} as they are stored (int8 taps come with `<tap>.scale`)."""
        names = names or [array.name for array in self.plan.arrays]
        rows = slice(rows, rows + 1) if isinstance(rows, int) else rows
        return {name: self.rows(split, name)[rows] for name in names}

    def view(self, split: str, name: str, row: int) -> np.ndarray:
        """One sample of an array, memory-mapped without a copy; its chunk is verified once."""
        return self.rows(split, name).view(row)

    def _complete(self, shard: Shard) -> bool:
        try:
            return all((self.path / name).exists() for name in self.hashes(shard))
        except (OSError, ValueError):
            return False

    def _record(self, split: str, index: int) -> Path:
        return self.path / "committed" / f"{split}.{index}.json"

    def _files(self, shard: Shard) -> list[Path]:
        paths = (
            shard_file(self.path / shard.split / array.name, array, shard.index)
            for array in self.plan.arrays
        )
        return [path for path in paths if path.exists()]


def write_manifest(path: str | Path, store: Store, command: Sequence[str]) -> None:
    """Describe a complete store: the DVC out. `command` makes missing shards again."""
    plan = store.plan
    write_json(
        path,
        {
            "kind": plan.kind,
            "fingerprint": plan.fingerprint,
            "facts": plan.facts,
            "arrays": [asdict(array) for array in plan.arrays],
            "splits": plan.splits,
            "samples_per_shard": plan.samples_per_shard,
            "command": list(command),
            "shards": {shard.name: store.hashes(shard) for shard in plan.shards()},
        },
    )


def plan_of(manifest: Mapping) -> Plan:
    """The plan that a manifest describes."""
    arrays = tuple(
        Array(a["name"], tuple(a["shape"]), a["dtype"], tuple(a["dims"]))
        for a in manifest["arrays"]
    )
    return Plan(
        manifest["kind"],
        manifest["facts"],
        arrays,
        {split: manifest["splits"][split] for split in _in_order(manifest["splits"])},
        manifest["samples_per_shard"],
    )


def _in_order(splits: Mapping[str, int]) -> list[str]:
    from pipeline.generators.latents import SPLITS

    return sorted(splits, key=lambda s: (SPLITS.index(s) if s in SPLITS else len(SPLITS), s))


def open_store(manifest: str | Path) -> Store:
    """Open the store behind a manifest; missing shards are made again by its own command.

    After a kill, or in a fresh clone whose DVC cache was pulled, a manifest without shards is
    normal. The command runs as a process of its own, so reading needs no generator and no torch.
    """
    facts = read_json(manifest)
    store = Store(plan_of(facts))
    assert store.plan.fingerprint == facts["fingerprint"], f"{manifest} was edited by hand"
    if not (store.path / "zarr.json").exists() or store.missing():
        gone = len(store.missing()) if store.path.exists() else "all"
        say(f"{gone} shards of {store.path} are missing; running: {' '.join(facts['command'])}")
        own = os.environ | {RUN: str(os.getpid())}  # it ends with this process
        result = subprocess.run([sys.executable, *facts["command"][1:]], check=False, env=own)
        if result.returncode or store.missing():
            raise InputError(
                f"{len(store.missing())} missing shards of {store.path}, and the command that "
                f"makes them failed with status {result.returncode}",
                "a complete store",
                "run `dvc repro`, or `python -m stages.store import` an exported store",
            )
    return store
