"""The study of inversion: masks of inverted photos against the masks that people drew on them."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from pipeline.analysis.fewshot import fits
from pipeline.analysis.fewshot.options import Rule
from pipeline.data.arrays import write_group
from pipeline.data.features import Source, stream
from pipeline.data.images import to_float, to_uint8
from pipeline.data.inputs import Study
from pipeline.data.landmarks import landmark_distance, load_faces
from pipeline.editing.inversion.options import PhotoStudy
from pipeline.editing.inversion.pieces import (
    DISTANCES,
    invert_photos,
    load_appearance,
    stacked,
)
from pipeline.editing.inversion.scores import score_masks, summarize
from pipeline.extractors.networks import LSE, load_extractor
from pipeline.extractors.prediction import confusions
from pipeline.metrics.iou import PixelCounts
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import sha256
from pipeline.runtime.progress import say, track
from pipeline.teachers.faces import load_pairs
from pipeline.teachers.labels import CELEBAMASK19, read_space
from pipeline.teachers.registry import load_teacher

SPLIT = "test"
FULL, TEACHER = "lse", "teacher on the photo"


@dataclass(frozen=True)
class Readers:
    """What reads photos, images and masks."""

    appearance: str  # linear reading of the generator's images
    extractor: str  # the fully fitted LSE
    teacher: str
    labels: str  # label space of the masks


@dataclass(frozen=True)
class Photos:
    """Photos at the size of masks, and the masks that people drew."""

    images: UInt8[np.ndarray, "photo 3 size size"]
    masks: UInt8[np.ndarray, "photo size size"]
    classes: tuple[str, ...]
    digest: str  # of all pairs of the folder


def read_photos(faces: str | Path, labels: str, plan: PhotoStudy) -> Photos:
    """The last pairs of a folder of images/* and masks/*.png, merged to the label space."""
    pairs = load_pairs(faces, plan.label_size, len(CELEBAMASK19))
    if not 1 <= plan.test <= len(pairs.images):
        raise InputError(
            f"test {plan.test} of {len(pairs.images)} pairs",
            f"1 to {len(pairs.images)}",
            "change test",
        )
    some, space = pairs.part(slice(-plan.test, None)), read_space(labels, CELEBAMASK19)
    masks = space.merge_ids(some.masks.numpy())
    return Photos(some.images.numpy(), masks, space.classes, some.digest)


def measure_photos(
    study: Study,  # whose pool few-shot extractors are fitted on
    photos: Photos,
    readers: Readers,
    plan: PhotoStudy,
    few: Rule,
    num_workers: int = 0,
) -> dict:
    """Invert, read masks by every extractor, score against people's masks; the report."""
    source, size = study.source, load_appearance(readers.appearance, study.source).taps[-1]
    extractors = fit_extractors(study, photos.classes, readers.extractor, plan, few)
    small = np.concatenate([to_uint8(to_float(x[None]), size.resolution) for x in photos.images])
    found = invert_photos(source, readers.appearance, small, plan.rule, num_workers)
    with tempfile.TemporaryDirectory() as folder:
        latents, masks = (str(Path(folder) / f"{name}.zarr.zip") for name in ("ws", "masks"))
        write_group(latents, {f"{SPLIT}/ws": stacked(found, "ws")}, {})
        write_group(masks, {f"{SPLIT}/masks": photos.masks}, {"classes": list(photos.classes)})
        inverted = replace(source, latents=latents)
        lses = [one for several in extractors.values() for one in several]
        counts = confusions(lses, inverted, masks, SPLIT, num_workers)
        landmarks = compare_landmarks(inverted, photos.images)
    scores, start = {}, 0
    for name, several in extractors.items():
        stop = start + len(several)
        scores[name] = score_masks(counts[start:stop], photos.classes)
        start = stop
    scores[TEACHER] = score_masks(label_photos(source, photos, readers), photos.classes)
    distances = {
        name.removeprefix("distance_"): summarize(stacked(found, name).tolist())
        for name in DISTANCES
    }
    about = {"photos": len(photos.images), "data": photos.digest, "size": size.resolution}
    about |= {"label_size": plan.label_size, "rule": asdict(plan.rule)}
    about |= {"classes": list(photos.classes), "files": digests(source, readers)}
    return about | {"scores": scores, "distances": distances, "landmarks": landmarks}


def digests(source: Source, readers: Readers) -> dict[str, str]:
    """What the results depend on, by the first digits of the files' sha256."""
    files = {"generator": source.checkpoint, "appearance": readers.appearance}
    files |= {"extractor": readers.extractor, "teacher": readers.teacher}
    return {name: sha256(path)[:16] for name, path in files.items()}


def fit_extractors(
    study: Study, classes: Sequence[str], full: str, plan: PhotoStudy, few: Rule
) -> dict[str, list[LSE]]:
    """The full LSE, and the few-shot ones by shots; InputError if their classes differ."""
    lse = load_extractor(full, study.source.device)
    if not isinstance(lse, LSE) or not lse.classes == tuple(classes) == study.classes:
        raise InputError(
            f"{full} with classes {', '.join(lse.classes)} "
            f"and {study.masks} with {', '.join(study.classes)}",
            f"those of the photos' masks: {', '.join(classes)}",
            "name an LSE and masks of this label space",
        )
    found = {FULL: [lse]}
    tasks = fits.random_tasks(study.pool, plan.sweep_shots, plan.repeats, plan.fewshot_seed)
    for fitted in fits.solve_all(study, tasks, few):
        name = f"{len(fitted.task.rows)}-shot"
        found.setdefault(name, []).append(fitted.extractor)
    return found


def label_photos(
    source: Source, photos: Photos, readers: Readers
) -> Int[np.ndarray, "1 photo class class"]:
    """Confusion matrices of the teacher's masks of the photos themselves."""
    teacher = load_teacher(readers.teacher, readers.labels, source.device)
    counts, size = PixelCounts(len(photos.classes)), photos.masks.shape[-1]
    for image, mask in zip(photos.images, photos.masks, strict=True):
        counts.add(teacher.label(to_float(image[None]), size), mask[None])
    return counts.per_image[None]


def compare_landmarks(
    inverted: Source, photos: UInt8[np.ndarray, "photo 3 size size"]
) -> dict[str, float | int | None] | None:
    """How far landmarks of images lie from those of photos, in eye distances.

    Photos, or images, in which no face is found are left out; None without the extra `photos`.
    """
    if find_spec("ai_edge_litert") is None:
        say("no landmarks: pip install -e '.[photos]' for them")
        return None
    faces, size, values = load_faces(), photos.shape[-1], []
    last = inverted.generator().taps[-1:]
    for row, photo in enumerate(track(photos, "comparing landmarks", len(photos))):
        ((_, image),) = stream(inverted, SPLIT, row, row + 1, last, images=True)
        assert image is not None, "a pass that was asked for an image"
        try:
            pair = [faces.landmarks(one) for one in (photo, to_uint8(image, size)[0])]
        except InputError:  # no face where it should be
            continue
        values.append(landmark_distance(*pair))
    return summarize(values)
