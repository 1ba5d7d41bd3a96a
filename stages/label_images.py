"""Images become the teacher's masks, at the images' own size, in a study's label spaces."""

from pathlib import Path

from pipeline.runtime.options import Processes
from stages import run


def label_images(
    images: Path,
    teacher: Path,
    masks: Path,
    masks_full: Path,
    *,
    labels: str,
    labels_full: str,
    machine: Processes,
) -> None:
    """Label every split of `images` with the weights `teacher`, once for both label spaces."""
    from pipeline.data.arrays import Group, write_group
    from pipeline.runtime.devices import pick_device
    from pipeline.runtime.files import sha256
    from pipeline.teachers.labeling import Job
    from pipeline.teachers.labeling import label_images as label
    from pipeline.teachers.registry import load_teachers

    spaces = (labels, labels_full)
    readings = [one.labels for one in load_teachers(teacher, spaces)]
    job = Job(str(teacher), spaces, str(images), pick_device(machine.device))
    found = label(job, list(Group(images).splits), machine.workers)
    for path, name, space, arrays in zip((masks, masks_full), spaces, readings, found, strict=True):
        facts = {"labels": name, "classes": space.classes, "teacher": sha256(teacher)[:16]}
        write_group(path, arrays, facts)


if __name__ == "__main__":
    run(label_images)
