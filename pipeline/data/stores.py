"""Feature stores: big arrays outside DVC, named by a fingerprint, described by a small manifest.

A store is a zarr group of one array per tap and split. Only the sample axis is chunked; a shard is
written whole, then committed by a record of its files' sha256. What is not committed is missing.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from mmap import mmap
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numpy as np

from pipeline.runtime.errors import InputError
from pipeline.runtime.files import atomic, fingerprint, read_json, sha256, store_root, write_json
from pipeline.runtime.progress import say

KINDS = ("features", "pixels")
GIB = 2**30
SAMPLES_PER_CHUNK = 4
FILTER = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


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
        path = str(
            _shard_file(self.folder, self.array, shard)
        )  # numpy resolves every link of a Path
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


def _shard_file(folder: Path, array: Array, index: int) -> Path:
    return folder / "c" / str(index) / "/".join("0" * len(array.shape))


class _ShardFile:
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
        chunk, files, hashes = self._samples_per_chunk, {}, {}
        with ExitStack() as stack:
            for array in self.plan.arrays:
                path = _shard_file(self.path / shard.split / array.name, array, shard.index)
                file = open(stack.enter_context(atomic(path)), "wb")  # noqa: SIM115
                writer = _ShardFile(file, chunk, self._samples_per_shard // chunk)
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
                hashes[str(path.relative_to(self.path))] = writer.finish(array.bytes_per_sample)
        write_json(self._record(shard), hashes)

    def drop(self, shard: Shard) -> None:
        """Forget a shard: first its record, so that no record ever names a missing file."""
        self._record(shard).unlink(missing_ok=True)
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
        return read_json(self._record(shard))

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
        return Rows(arrays[name], folder, size, self._samples_per_shard)

    def read(self, split: str, rows: slice | int, names: Sequence[str] | None = None) -> dict:
        """Arrays {name: [rows, ...]} as they are stored (int8 taps come with `<tap>.scale`)."""
        names = names or [array.name for array in self.plan.arrays]
        rows = slice(rows, rows + 1) if isinstance(rows, int) else rows
        return {name: self.rows(split, name)[rows] for name in names}

    def view(self, split: str, name: str, row: int) -> np.ndarray:
        """One sample of an array, memory-mapped: no copy, and no other sample is read."""
        return self.rows(split, name).view(row)

    def _complete(self, shard: Shard) -> bool:
        record = self._record(shard)
        if not record.exists():
            return False
        try:
            return all((self.path / name).exists() for name in json.loads(record.read_text()))
        except json.JSONDecodeError:
            return False

    def _record(self, shard: Shard) -> Path:
        return self.path / "committed" / f"{shard.split}.{shard.index}.json"

    def _files(self, shard: Shard) -> list[Path]:
        paths = (
            _shard_file(self.path / shard.split / array.name, array, shard.index)
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
        result = subprocess.run([sys.executable, *facts["command"][1:]], check=False)
        if result.returncode or store.missing():
            raise InputError(
                f"{len(store.missing())} missing shards of {store.path}, and the command that "
                f"makes them failed with status {result.returncode}",
                "a complete store",
                "run `dvc repro`, or `python -m stages.store import` an exported store",
            )
    return store


def verify(store: Store, repair: bool = False) -> list[str]:
    """Names of missing and damaged shards; `repair` drops damaged ones so that they are remade."""
    damaged = store.damaged()
    names = [s.name for s in store.missing()] + [s.name for s in damaged]
    if repair:
        for shard in damaged:
            store.drop(shard)
    return sorted(names)


def list_stores(root: Path) -> list[dict]:
    """Kind, fingerprint, bytes and path of every store under `root`."""
    found = []
    for kind in KINDS:
        for path in sorted((root / kind).glob("*/zarr.json")):
            size = sum(p.stat().st_size for p in path.parent.glob("**/*") if p.is_file())
            found.append(
                {
                    "kind": kind,
                    "fingerprint": path.parent.name,
                    "bytes": size,
                    "path": str(path.parent),
                }
            )
    return found


def collect_garbage(root: Path, keep: set[str], dry_run: bool = False) -> list[dict]:
    """Remove stores whose fingerprint is not in `keep`; returns what was (or would be) removed."""
    unused = [store for store in list_stores(root) if store["fingerprint"] not in keep]
    for store in unused if not dry_run else []:
        shutil.rmtree(store["path"])
        Path(store["path"] + ".lock").unlink(missing_ok=True)
    return unused


def export_store(store: Store, archive: Path) -> int:
    """Write a complete store to a tar file, atomically; returns its bytes."""
    if missing := store.missing():
        raise InputError(
            f"a store with {len(missing)} missing shards", "a complete one", "run `dvc repro`"
        )
    with atomic(archive) as partial, tarfile.open(partial, "w") as tar:
        tar.add(store.path, arcname=f"{store.plan.kind}/{store.plan.fingerprint}")
    return archive.stat().st_size


def import_store(archive: Path, root: Path) -> str:
    """Unpack an exported store under `root`; refuses paths outside it. Returns the fingerprint."""
    try:
        with tarfile.open(archive) as tar:
            _check_members(archive, tar)
            top = {"/".join(Path(name).parts[:2]) for name in tar.getnames()}
            kind, *rest = next(iter(top), "").split("/")
            if len(top) != 1 or kind not in KINDS or not rest:
                raise InputError(
                    f"{archive} with {sorted(top)[:3]}", "one exported store", "export it again"
                )
            kind, name = next(iter(top)).split("/")
            with tempfile.TemporaryDirectory(prefix="import-", dir=_made(root)) as folder:
                # Python before 3.11.4 has no filters: what they refuse is refused above.
                tar.extractall(folder, **FILTER)
                shutil.rmtree(_made(root / kind) / name, ignore_errors=True)
                os.replace(Path(folder) / kind / name, root / kind / name)
    except (tarfile.TarError, OSError) as error:
        raise InputError(
            f"{archive}, which cannot be read ({error})", "a tar file", "export it again"
        ) from error
    return name


def _check_members(archive: Path, tar: tarfile.TarFile) -> None:
    """InputError for a member that is no plain file or folder inside the archive's own folder."""
    for member in tar.getmembers():
        inside = not (set(Path(member.name).parts) & {"..", "/"})
        if not inside or not (member.isfile() or member.isdir()):
            raise InputError(
                f"{archive} with {member.name!r}, a link or a path outside",
                "plain files and folders of one exported store",
                "export it again",
            )


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
