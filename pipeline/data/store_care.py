"""Care of feature stores: verify, list, collect garbage, export and import."""

import os
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from pipeline.data.stores import Store
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import atomic

KINDS = ("features", "pixels")
FILTER: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


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
