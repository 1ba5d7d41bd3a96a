"""How well extractors segment photographs that are inverted, against masks that people drew."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.analysis.fewshot.options import Rule
from pipeline.editing.inversion.options import PhotoStudy
from pipeline.runtime.options import Machine
from stages import run
from stages.paths import Labeled


@dataclass(frozen=True)
class Read:
    """What reads a study's images, maps and photographs."""

    appearance: Path
    extractor: Path
    teacher: Path


@dataclass(frozen=True)
class Told:
    """Scores, and a page of them."""

    metrics: Path
    page: Path


def measure_photos(
    faces: Path,
    samples: Labeled,
    read: Read,
    told: Told,
    *,
    plan: PhotoStudy,
    few: Rule,
    machine: Machine,
    labels: str = "celebamask15",
) -> None:
    """Invert the last photos of `faces`, read their masks, and write scores and a page of them.

    Killed, it goes on with the first photo that is not finished. No picture is written.
    """
    from pipeline.data.inputs import Study
    from pipeline.editing.inversion import study as photographs
    from pipeline.reporting.photos import photos_page
    from pipeline.runtime.files import atomic, write_json

    readers = photographs.Readers(
        str(read.appearance), str(read.extractor), str(read.teacher), labels
    )
    photos = photographs.read_photos(faces, labels, plan)
    study = Study(samples.source(machine), str(samples.masks))
    report = photographs.measure_photos(study, photos, readers, plan, few, machine.workers)
    write_json(told.metrics, report)
    with atomic(told.page) as partial:
        partial.write_text(photos_page(told.metrics.stem, report))


if __name__ == "__main__":
    run(measure_photos)
