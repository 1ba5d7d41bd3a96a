"""A data set of generated samples with masks: made in pieces, resumed, filtered, described.

The files of a sample depend on its seed, its truncation and the networks alone. So a data set grows
when it is asked for more samples, and what was dropped or damaged is made again.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from shutil import rmtree

import PIL
import torch

from pipeline.analysis.dataset import samples as made
from pipeline.analysis.dataset.committee import load_committee
from pipeline.analysis.dataset.layouts import LAYOUTS, Set
from pipeline.analysis.dataset.options import Export
from pipeline.analysis.dataset.samples import Batch, Job, Row, Sample
from pipeline.data.features import Source
from pipeline.extractors.prediction import check_extractor
from pipeline.runtime import workers
from pipeline.runtime.errors import InputError, choose
from pipeline.runtime.files import atomic, read_json, sha256, write_json
from pipeline.runtime.progress import track

VERSION = 1  # raise it when the same samples should get other files
MANIFEST, TABLE, CLASSES = "manifest.json", "samples.csv", "classes.txt"
PER_TASK = 16  # samples of a process at a time
COMMITTEE_DROP = 0.1  # HandsOff and DatasetGAN drop a tenth


def export_dataset(
    source: Source,  # its latents are not read
    extractors: Sequence[str],
    folder: Path,
    plan: Export,
    num_workers: int = 0,
) -> dict:
    """Make the data set, or what of it is missing, in `folder`; returns its manifest.

    Killed, it goes on behind the last finished sample, and gives the same bytes.
    """
    drop = _check(source, extractors, plan)
    job = Job(source, tuple(extractors), str(folder), plan)
    manifest = describe(source, extractors, plan) | {"drop": drop, "layouts": [*plan.layouts]}
    wanted = list(samples_of(plan))
    folder.mkdir(parents=True, exist_ok=True)
    _open(folder, manifest)

    known = _known(folder, plan.format)
    _make(job, [one for one in wanted if one.name not in known], num_workers)
    known |= _records(folder)
    kept = keep_surest([known[one.name] for one in wanted], drop)
    gone = [one for one in wanted if one.name in kept and not _there(folder, plan.format, one.name)]
    _make(job, gone, num_workers)  # dropped of a smaller set, and kept now
    known |= _records(folder)
    rows = [known[one.name] for one in wanted]

    _write_table(folder / TABLE, rows, kept)
    _tidy(folder, kept)
    about = Set(folder, manifest["classes"], [r for r in rows if r.name in kept], plan.format)
    for layout in plan.layouts:
        LAYOUTS[layout](about, num_workers)
    manifest |= {"samples": len(rows), "kept": len(kept), "complete": True}
    write_json(folder / MANIFEST, manifest)
    return manifest


def samples_of(plan: Export) -> Iterator[Sample]:
    """The samples of a plan, in order."""
    for i in range(plan.samples):
        yield Sample(plan.first_seed + i, plan.psis[i % len(plan.psis)])


def describe(source: Source, extractors: Sequence[str], plan: Export) -> dict:
    """All that the files of a sample depend on besides its seed, and where that came from."""
    return {
        "version": VERSION,
        "generator": _file(source.checkpoint),
        "extractors": [_file(path) for path in extractors],
        "classes": list(load_committee(extractors).classes),
        "compute": source.compute,
        "device": source.device.split(":")[0],
        "first_seed": plan.first_seed,
        "psis": list(plan.psis),
        "size": plan.size,
        "label_size": plan.label_size,
        "format": plan.format,
        "quality": plan.quality,
        "software": {"torch": torch.__version__, "pillow": PIL.__version__},
    }


def _file(path: str) -> dict[str, str]:
    return {"file": Path(path).name, "sha256": sha256(path)}


def keep_surest(rows: Sequence[Row], drop: float) -> set[str]:
    """Names without the share `drop` of the largest uncertainty; of equals the first stay."""
    order = sorted(rows, key=lambda row: row.uncertainty)
    return {row.name for row in order[: len(rows) - round(drop * len(rows))]}


def _check(source: Source, extractors: Sequence[str], plan: Export) -> float:
    """InputError for a plan that makes no data set; returns the share to drop."""
    resolution = source.generator().resolution
    for extractor in extractors:
        check_extractor(extractor, source, None)
    twice = len({sha256(path) for path in extractors}) < len(extractors)
    lone = len(extractors) == 1
    drop = plan.drop if plan.drop is not None else 0.0 if lone else COMMITTEE_DROP
    choose("format", plan.format, made.FORMATS)
    for layout in plan.layouts:
        choose("layout", layout, LAYOUTS)
    wrong = [
        (not extractors, "no extractor", "one or more", "name a fitted one by --extractor"),
        (twice, "one extractor twice", "a committee of different ones", "leave one of them out"),
        (plan.samples < 1, f"samples {plan.samples}", "1 or more", "change samples"),
        (plan.first_seed < 0, f"first_seed {plan.first_seed}", "0 or more", "change first_seed"),
        (
            not 1 <= plan.size <= resolution,
            f"size {plan.size}",
            f"1 to {resolution} px, the generator's",
            "change size",
        ),
        (plan.label_size < 1, f"label_size {plan.label_size}", "1 px or more", "change label_size"),
        (not 1 <= plan.quality <= 100, f"quality {plan.quality}", "1 to 100", "change quality"),
        (not plan.psis or min(plan.psis) <= 0, f"psis {plan.psis}", "above 0", "change psis"),
        (not 0 <= drop < 1, f"drop {drop}", "0 or more, and less than 1", "change drop"),
        (
            lone and drop > 0,
            f"drop {drop} with a single extractor, which disagrees with nobody",
            "0, or a committee",
            "name further extractors, refits of the same labels, or leave --drop out",
        ),
    ]
    for bad, got, remedy_for, remedy in wrong:
        if bad:
            raise InputError(got, remedy_for, remedy)
    return drop


def _open(folder: Path, manifest: dict) -> None:
    """Begin a data set, or go on with it; InputError if the folder holds something else."""
    path, free = folder / MANIFEST, ("samples", "kept", "complete", "drop", "layouts", "software")
    if not path.exists():
        if any(folder.iterdir()):
            raise InputError(
                f"{folder} with files of something else",
                "a new folder, or one that a data set was begun in",
                "name another folder",
            )
    else:
        found = read_json(path)
        for key in manifest.keys() - {*free}:
            if _value(found.get(key)) != _value(manifest[key]):
                raise InputError(
                    f"{folder}, a data set of another {key} ({_value(found.get(key))})",
                    f"that of {_value(manifest[key])}",
                    "name another folder, or delete this one",
                )
    write_json(path, manifest | {"complete": False})
    with atomic(folder / CLASSES) as partial:
        partial.write_text("".join(f"{name}\n" for name in manifest["classes"]))


def _value(entry: object) -> object:
    """What counts of an entry of the manifest: of files their content, not their names."""
    if isinstance(entry, dict):
        return entry["sha256"]
    if isinstance(entry, list) and entry and isinstance(entry[0], dict):
        return [one["sha256"] for one in entry]
    return entry


def _known(folder: Path, image_format: str) -> dict[str, Row]:
    """Samples that earlier runs have finished, by name: their files are whole, or were dropped."""
    rows = {}
    if (folder / TABLE).exists():
        with (folder / TABLE).open() as file:
            rows = {line["name"]: _row(line) for line in csv.DictReader(file)}
    rows |= _records(folder)
    there = [row for row in rows.values() if _there(folder, image_format, row.name)]
    for row in track(there, "checking finished samples", len(there)):
        if not made.is_whole(folder, image_format, row):
            del rows[row.name]
    return rows


def _row(line: dict[str, str]) -> Row:
    """A line of the table."""
    numbers = int(line["seed"]), float(line["psi"]), float(line["uncertainty"])
    return Row(line["name"], *numbers, line["image"], line["mask"], line["doubt"])


def _records(folder: Path) -> dict[str, Row]:
    """Samples that were finished since the table was written, by name."""
    rows = map(made.read_record, sorted((folder / made.RECORDS).glob("*.json")))
    return {row.name: row for row in rows}


def _there(folder: Path, image_format: str, name: str) -> bool:
    return made.files_of(folder, name, image_format)[0].exists()


def _make(job: Job, wanted: Sequence[Sample], num_workers: int) -> None:
    """Make samples in worker processes."""
    tasks = [
        Batch(job, tuple(wanted[start : start + PER_TASK]))
        for start in range(0, len(wanted), PER_TASK)
    ]
    if not tasks:
        return
    processes = workers.count(num_workers, job.source.device, len(tasks))
    for _ in workers.run(made.make_samples, tasks, f"drawing {len(wanted)} samples", processes):
        pass


def _write_table(path: Path, rows: Sequence[Row], kept: set[str]) -> None:
    """A line a sample, those that are dropped included."""
    names = [field.name for field in fields(Row)]
    with atomic(path) as partial, partial.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*names, "kept"])
        table.writerows([*astuple(row), int(row.name in kept)] for row in rows)


def _tidy(folder: Path, kept: set[str]) -> None:
    """Remove the files of samples that are not of the set, and the records of all."""
    for kind in (made.IMAGES, made.MASKS, made.DOUBTS):
        for path in (folder / kind).glob("*"):
            if path.stem not in kept:
                path.unlink()
    rmtree(folder / made.RECORDS, ignore_errors=True)
