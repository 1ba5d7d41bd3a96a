"""Photos to latents that every command reads, with their images, masks and distances as files."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from pipeline.data.alignment import Square
from pipeline.data.arrays import write_group
from pipeline.data.features import Source, stream
from pipeline.data.images import to_uint8
from pipeline.data.mask_files import write_mask
from pipeline.data.options import Alignment
from pipeline.data.photo_files import write_png
from pipeline.data.photos import check_photos, read_subject
from pipeline.editing.inversion.options import Inversion
from pipeline.editing.inversion.pieces import (
    DISTANCES,
    Arrays,
    invert_photos,
    load_appearance,
    stacked,
)
from pipeline.extractors.networks import load_extractor
from pipeline.extractors.prediction import check_extractor
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import sha256, write_json

LATENTS, DISTANCE_FILE = "latents.zarr.zip", "photos.json"
SPLIT = "test"  # of the latents' file: the split that commands read by default


@dataclass(frozen=True)
class Face:
    """A photo's face, cut at the size that it is inverted at."""

    name: str
    square: Square
    pixels: UInt8[np.ndarray, "3 size size"]


def read_faces(paths: Sequence[Path], alignment: Alignment, size: int, folder: Path) -> list[Face]:
    """The face of each photo at `size` px; InputError for any that has none, before other work.

    Also for photos that the files written into `folder` would replace.
    """
    points = check_photos(paths, alignment)
    stems = [path.stem for path in paths]
    names = [f"{stem}{end}.png" for stem in stems for end in ("", "_mask")]
    lost = {(folder / name).absolute() for name in names} & {path.absolute() for path in paths}
    if lost or len({*names}) < len(names):
        raise InputError(
            f"{min(lost)}, which a result would replace"
            if lost
            else "photos whose results are files of one name",
            "photos and results of different names",
            "name another folder by --out, or rename a photo",
        )
    faces = []
    for path, four in zip(paths, points, strict=True):
        subject = read_subject(path, alignment, four)
        faces.append(Face(subject.name, subject.square, subject.aligned(size)))
    return faces


def invert_files(
    source: Source,  # its latents are not read
    appearance: str | Path,
    paths: Sequence[Path],
    alignment: Alignment,
    rule: Inversion,
    folder: Path,
    num_workers: int = 0,
) -> Source:
    """Write the latents of photos and their distances; returns the source with these latents."""
    size = load_appearance(str(appearance), source).taps[-1].resolution
    faces = read_faces(paths, alignment, size, folder)
    pixels = np.stack([face.pixels for face in faces])
    found = invert_photos(source, str(appearance), pixels, rule, num_workers)
    generator = sha256(source.checkpoint)[:16]
    facts = {"generator": generator, "photos": [face.name for face in faces]}
    write_group(folder / LATENTS, {f"{SPLIT}/ws": stacked(found, "ws")}, facts)
    rows = [_row(i, face, one) for i, (face, one) in enumerate(zip(faces, found, strict=True))]
    about = {"generator": generator, "size": size, "rule": asdict(rule), "split": SPLIT}
    write_json(folder / DISTANCE_FILE, about | {"photos": rows})
    return replace(source, latents=str(folder / LATENTS))


def _row(row: int, face: Face, found: Arrays) -> dict:
    """Where the photo's latents and face are, and how far its image is from it."""
    distances = {name.removeprefix("distance_"): round(float(found[name]), 5) for name in DISTANCES}
    return {"name": face.name, "row": row, "square": asdict(face.square)} | distances


def draw_photos(
    source: Source,  # with the photos' latents
    names: Sequence[str],
    folder: Path,
    extractor: Path | None = None,  # writes masks; None: none
    label_size: int = 256,  # px of masks
) -> None:
    """Write NAME.png, the photo's image by the generator, and NAME_mask.png of class ids."""
    reader = None if extractor is None else load_extractor(extractor, source.device)
    taps = source.generator().taps[-1:] if reader is None else reader.taps
    for row, name in enumerate(names):
        ((features, image),) = stream(source, SPLIT, row, row + 1, taps, images=True)
        assert image is not None, "a pass that was asked for an image"
        write_png(folder / f"{name}.png", to_uint8(image, image.shape[-1])[0])
        if reader is not None:
            mask = reader.predict(features, label_size)[0]
            write_mask(folder / f"{name}_mask.png", mask, reader.classes)


def check_reader(extractor: Path | None, source: Source) -> None:
    """InputError for an extractor of another generator, before any work."""
    if extractor is not None:
        check_extractor(str(extractor), source, None)
