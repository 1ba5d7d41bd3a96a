"""Descriptions of a data set for other programs, beside its images and masks or in a file."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.analysis.dataset import coco
from pipeline.analysis.dataset.samples import Row, files_of
from pipeline.runtime import workers
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import atomic

PER_TASK = 200  # masks that a process describes at a time
PER_GROUP = 100  # samples of a parquet file's row group, which are in memory together


@dataclass(frozen=True)
class Set:
    """The samples of a data set, whose files lie in `folder`."""

    folder: Path
    classes: Sequence[str]
    rows: Sequence[Row]
    format: str


def write_folder(data: Set, num_workers: int = 0) -> None:
    """images/*, masks/*.png and uncertainty/*.png are there; nothing more."""


def write_coco(data: Set, num_workers: int = 0) -> None:
    """coco.json: the classes but the first as categories, a region of each class and image."""
    paths = [files_of(data.folder, row.name, data.format) for row in data.rows]
    masks = [str(mask) for _, mask, _ in paths]
    tasks = [masks[start : start + PER_TASK] for start in range(0, len(masks), PER_TASK)]
    with Image.open(masks[0]) as first:
        width, height = first.size
    images = [
        {"id": i, "file_name": image.name, "width": width, "height": height, "seed": row.seed}
        for i, ((image, *_), row) in enumerate(zip(paths, data.rows, strict=True), 1)
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(data.classes) if i]
    processes = workers.count(num_workers, "cpu", len(tasks))
    with atomic(data.folder / "coco.json") as partial, partial.open("w") as file:
        file.write(f'{{"images": {json.dumps(images)},\n"categories": {json.dumps(categories)},\n')
        file.write('"annotations": [')
        number = image_number = 0
        for found in workers.run(_described, tasks, "describing masks", processes):
            for regions in found:
                image_number += 1
                for region in regions:
                    file.write(",\n" if number else "\n")
                    number += 1
                    file.write(json.dumps({"id": number, "image_id": image_number} | region))
        file.write("]}\n")


def _described(masks: Sequence[str]) -> list[list[dict]]:
    """The regions of some masks."""
    return [list(coco.annotations(np.asarray(Image.open(path)))) for path in masks]


def write_huggingface(data: Set, num_workers: int = 0) -> None:
    """metadata.jsonl and a card: `datasets.load_dataset(folder)` gives columns image and mask."""
    with atomic(data.folder / "metadata.jsonl") as partial, partial.open("w") as file:
        for row in data.rows:
            image, mask, _ = files_of(data.folder, row.name, data.format)
            line = {
                "file_name": image.relative_to(data.folder).as_posix(),
                "mask_file_name": mask.relative_to(data.folder).as_posix(),
                "seed": row.seed,
                "psi": row.psi,
                "uncertainty": row.uncertainty,
            }
            file.write(json.dumps(line) + "\n")
    with atomic(data.folder / "README.md") as partial:
        partial.write_text(
            "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n"
            '    path: ["metadata.jsonl", "images/*", "masks/*"]\n---\n\n'
            f"Generated images with masks of {len(data.classes)} classes: "
            f"{', '.join(data.classes)}. `manifest.json` says what made them.\n"
        )


def write_parquet(data: Set, num_workers: int = 0) -> None:
    """parquet/train.parquet: the files' bytes and facts, which `datasets.load_dataset` opens."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(
            "layout parquet without the package pyarrow",
            "pyarrow, which writes it",
            "pip install pyarrow, or take the layout huggingface",
        ) from error
    file_type = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    kinds = {"image": file_type, "mask": file_type, "seed": pyarrow.int64()}
    kinds |= {"psi": pyarrow.float64(), "uncertainty": pyarrow.float64()}
    pictures = {name: {"_type": "Image"} for name in ("image", "mask")}
    values = {"seed": "int64", "psi": "float64", "uncertainty": "float64"}
    features = pictures | {n: {"dtype": kind, "_type": "Value"} for n, kind in values.items()}
    about = json.dumps({"info": {"features": features}})
    schema = pyarrow.schema(kinds, metadata={"huggingface": about})
    with (
        atomic(data.folder / "parquet" / "train.parquet") as partial,
        parquet.ParquetWriter(partial, schema, compression="none") as writer,
    ):
        for group in _groups(data):
            writer.write_table(pyarrow.Table.from_pylist(group, schema))


def _groups(data: Set) -> Iterator[list[dict[str, Any]]]:
    """Samples with their files' bytes, so many at a time as one row group holds."""
    for start in range(0, len(data.rows), PER_GROUP):
        group = []
        for row in data.rows[start : start + PER_GROUP]:
            image, mask, _ = files_of(data.folder, row.name, data.format)
            group.append(
                {
                    "image": {"bytes": image.read_bytes(), "path": image.name},
                    "mask": {"bytes": mask.read_bytes(), "path": mask.name},
                    "seed": row.seed,
                    "psi": row.psi,
                    "uncertainty": row.uncertainty,
                }
            )
        yield group


LAYOUTS: dict[str, Callable[[Set, int], None]] = {
    "folder": write_folder,
    "coco": write_coco,
    "huggingface": write_huggingface,
    "parquet": write_parquet,
}
