"""One sample of a data set: its files, what is known of it, and how both are made."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from pipeline.analysis.dataset.committee import Committee, load_committee
from pipeline.analysis.dataset.options import Export
from pipeline.data.features import Source
from pipeline.data.images import to_uint8
from pipeline.data.mask_files import write_mask
from pipeline.generators.latents import sample_z
from pipeline.generators.taps import record
from pipeline.runtime.files import atomic, read_json, write_json

RECORDS = "records"  # folder of what is known of each finished sample, until all are
IMAGES, MASKS, DOUBTS = "images", "masks", "uncertainty"
# Format of images: the end of their names, and what Pillow is told. An encoder's speed and size.
FORMATS = {
    "jpeg": (".jpg", {"subsampling": 0}),
    "png": (".png", {"compress_level": 3}),
    "webp": (".webp", {"method": 2}),
}
LOSSLESS = ("png",)


@dataclass(frozen=True)
class Job:
    """What makes samples, in this or another process."""

    source: Source  # its latents are not read
    extractors: tuple[str, ...]
    folder: str
    plan: Export


@dataclass(frozen=True)
class Sample:
    """What a sample is drawn from."""

    seed: int
    psi: float

    @property
    def name(self) -> str:
        """Its files' name, without an end."""
        return f"seed{self.seed}-psi{self.psi:g}"


@dataclass(frozen=True)
class Row:
    """A finished sample: what it was drawn from, and its files' sha256."""

    name: str
    seed: int
    psi: float
    uncertainty: float  # mean over pixels, 0 to 1
    image: str
    mask: str
    doubt: str  # empty: of a single extractor there is none


@dataclass(frozen=True)
class Batch:
    """Samples that one process makes."""

    job: Job
    samples: tuple[Sample, ...]


@lru_cache(maxsize=1)
def _committee(paths: tuple[str, ...], device: str) -> Committee:
    return load_committee(paths, device)


def make_samples(batch: Batch) -> None:
    """Write the files of samples, and a record of each.

    On a CPU each is drawn alone and by one thread, so that its bytes depend on nothing but itself.
    """
    job, source = batch.job, batch.job.source
    step = 1 if source.device == "cpu" else source.batch_size
    with _one_thread(source.device):
        for start in range(0, len(batch.samples), step):
            _make(job, batch.samples[start : start + step])


def _make(job: Job, samples: Sequence[Sample]) -> None:
    generator = job.source.generator()
    committee = _committee(job.extractors, job.source.device)
    with (
        torch.inference_mode(),
        record(generator, committee.taps_of(generator.taps)) as features,
    ):
        z = torch.from_numpy(sample_z([one.seed for one in samples], generator.z_dim))
        psis = [one.psi for one in samples]
        rows = [
            generator.mapping(one[None].to(generator.device), psi)
            for one, psi in zip(z, psis, strict=True)
        ]
        images = to_uint8(generator.synthesis(torch.cat(rows)), job.plan.size)
        labels = committee.label(features, job.plan.label_size, job.plan.size)
    masks = labels.masks.cpu().numpy()
    doubts = None if labels.disagreement is None else labels.disagreement.float().cpu().numpy()
    for i, sample in enumerate(samples):
        _write(job, committee, sample, images[i], masks[i], None if doubts is None else doubts[i])


def _write(
    job: Job,
    committee: Committee,
    sample: Sample,
    image: UInt8[np.ndarray, "3 size size"],
    mask: UInt8[np.ndarray, "size size"],
    doubt: np.ndarray | None,  # [label, label], 0 to 1
) -> None:
    """The files of a sample, then its record, without which they do not count."""
    root, name = Path(job.folder), sample.name
    end, settings = FORMATS[job.plan.format]
    quality = {} if job.plan.format in LOSSLESS else {"quality": job.plan.quality}
    pixels = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    digests = [_save(root / IMAGES / f"{name}{end}", pixels, job.plan.format, settings | quality)]
    path = root / MASKS / f"{name}.png"
    write_mask(path, mask, committee.classes)
    digests.append(sha256(path.read_bytes()).hexdigest())
    mean = 0.0 if doubt is None else float(doubt.mean(dtype=np.float64))
    if doubt is not None:
        shown = Image.fromarray(np.rint(255 * doubt).astype(np.uint8))
        digests.append(_save(root / DOUBTS / f"{name}.png", shown, "png", {}))
    row = Row(name, sample.seed, sample.psi, round(mean, 7), *digests, *[""] * (3 - len(digests)))
    write_json(root / RECORDS / f"{name}.json", asdict(row), sync=False)


def _save(path: Path, image: Image.Image, kind: str, settings: dict) -> str:
    """Write an image; returns the sha256 of its bytes."""
    held = io.BytesIO()
    image.save(held, kind.upper(), **settings)
    with atomic(path, sync=False) as partial:
        partial.write_bytes(held.getbuffer())
    return sha256(held.getbuffer()).hexdigest()


@contextmanager
def _one_thread(device: str) -> Iterator[None]:
    """Sums in one order, whatever the number of cores: on a CPU, one thread."""
    threads = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def files_of(folder: Path, name: str, image_format: str) -> list[Path]:
    """A sample's image, its mask and its map of uncertainty, whether they are there or not."""
    end, _ = FORMATS[image_format]
    ends = {IMAGES: end, MASKS: ".png", DOUBTS: ".png"}
    return [folder / kind / f"{name}{end}" for kind, end in ends.items()]


def is_whole(folder: Path, image_format: str, row: Row) -> bool:
    """Whether all of a sample's files are those that were written."""
    wanted = (row.image, row.mask, row.doubt)
    for path, digest in zip(files_of(folder, row.name, image_format), wanted, strict=True):
        if digest and (not path.is_file() or sha256(path.read_bytes()).hexdigest() != digest):
            return False
    return True


def read_record(path: Path) -> Row:
    """What was written with a sample."""
    return Row(**read_json(path))
