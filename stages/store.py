"""Verify, list, collect, export and import what DVC does not carry: feature stores and pieces."""

import subprocess
from pathlib import Path
from typing import Annotated

import typer

from stages import execute

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False, help=__doc__)
Manifests = Annotated[list[Path] | None, typer.Argument(help="default: all in data/")]


def manifests(given: list[Path] | None) -> list[Path]:
    """The manifests given, or all of the workspace."""
    return given or sorted(Path("data").glob("features/*.json")) + sorted(
        Path("data").glob("pixels/*.json")
    )


@app.command()
def verify(paths: Manifests = None, repair: bool = False) -> None:
    """Re-hash every shard; --repair makes missing and damaged ones again."""
    from pipeline.data import store_care, stores
    from pipeline.runtime.errors import InputError
    from pipeline.runtime.files import read_json

    bad = []
    for path in manifests(paths):
        store = stores.Store(stores.plan_of(read_json(path)))
        names = store_care.verify(store, repair)
        if names and repair:
            stores.open_store(path)
        print(
            f"{path}: {len(names)} of {len(store.plan.shards())} shards missing or damaged"
            + (", made again" if names and repair else "")
        )
        bad += [] if repair else [f"{path} {name}" for name in names]
    if bad:
        raise InputError(", ".join(bad[:3]), "intact shards", "run `store verify --repair`")


@app.command("list")
def list_() -> None:
    """List feature stores by kind, fingerprint and size, and finished pieces by kind."""
    from pipeline.data.store_care import list_stores
    from pipeline.runtime.files import store_root
    from pipeline.runtime.pieces import list_pieces

    for store in list_stores(store_root()):
        print(f"{store['kind']:19} {store['fingerprint']} {store['bytes'] / 2**20:9.1f} MiB")
    for kind, files in list_pieces(store_root()):
        size = sum(path.stat().st_size for path in files)
        print(f"{kind:19} {len(files):9} pieces {size / 2**20:9.1f} MiB")


@app.command()
def gc(
    dry_run: bool = False,
    days: Annotated[float, typer.Option(help="keep pieces that a run used since then")] = 30,
) -> None:
    """Remove stores that no manifest of the workspace, a branch, tag or experiment names.

    Finished pieces of few-shot fits, samples and edits go when no run has used them for --days.
    """
    from pipeline.data.store_care import collect_garbage
    from pipeline.runtime.files import read_json, store_root
    from pipeline.runtime.pieces import list_pieces, remove_unused

    verb = "would remove" if dry_run else "removed"
    keep = {read_json(path)["fingerprint"] for path in manifests(None)} | committed()
    for store in collect_garbage(store_root(), keep, dry_run):
        print(f"{verb} {store['kind']} {store['fingerprint']}, {store['bytes'] / 2**20:.1f} MiB")
    before = sum(len(files) for _, files in list_pieces(store_root()))
    unused = remove_unused(store_root(), days, dry_run)
    print(f"{verb} {len(unused)} of {before} pieces, those not used for {days:g} days")


def committed() -> set[str]:
    """Fingerprints of manifests in the DVC cache that any ref's dvc.lock names."""
    import json

    import yaml

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout

    found = set()
    for ref in git("for-each-ref", "--format=%(refname)").split():
        lock = yaml.safe_load(git("show", f"{ref}:dvc.lock")) or {}
        for stage in (lock.get("stages") or {}).values():
            for out in stage.get("outs", []):
                name = out.get("md5", "")
                path = Path(".dvc/cache/files/md5") / name[:2] / name[2:]
                if out["path"].startswith(("data/features/", "data/pixels/")) and path.exists():
                    found.add(json.loads(path.read_text())["fingerprint"])
    return found


@app.command()
def export(manifest: Path, archive: Path) -> None:
    """Pack the store behind a manifest into one tar file."""
    from pipeline.data.store_care import export_store
    from pipeline.data.stores import Store, plan_of
    from pipeline.runtime.files import read_json

    size = export_store(Store(plan_of(read_json(manifest))), archive)
    print(f"wrote {archive}, {size / 2**20:.1f} MiB")


@app.command("import")
def import_(archive: Path) -> None:
    """Unpack an exported store into this machine's store folder."""
    from pipeline.data.store_care import import_store
    from pipeline.runtime.files import store_root

    print(f"imported {import_store(archive, store_root())} into {store_root()}")


if __name__ == "__main__":
    execute(app)
