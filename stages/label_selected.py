"""Masks of the full label list become masks of the selected classes (appendix E)."""

from pathlib import Path

from pipeline.runtime.options import Processes
from stages import run


def label_selected(
    images: Path,
    teacher: Path,
    masks_full: Path,
    selection: Path,
    masks: Path,
    *,
    labels: str,
    machine: Processes,
) -> None:
    """Label the images that show a dropped class again, without it; the others keep their masks."""
    from pipeline.data.arrays import Group, write_group
    from pipeline.runtime.devices import pick_device
    from pipeline.runtime.errors import InputError
    from pipeline.runtime.files import read_json
    from pipeline.teachers import labeling
    from pipeline.teachers.registry import load_teacher

    full, kept = Group(masks_full), read_json(selection)["kept"]
    teachers = [load_teacher(teacher, labels, keep=keep).labels for keep in (None, kept)]
    if list(teachers[0].classes) != list(full.attributes["classes"]):
        raise InputError(
            f"{masks_full} of classes {', '.join(full.attributes['classes'])}",
            f"those of {labels}: {', '.join(teachers[0].classes)}",
            "name the masks that label_images wrote with these labels",
        )
    job = labeling.Job(str(teacher), (labels,), str(images), pick_device(machine.device))
    arrays = labeling.label_selected(job, full, kept, machine.workers)
    facts = {"labels": teachers[1].name, "classes": teachers[1].classes}
    write_group(masks, arrays, facts | {"teacher": full.attributes["teacher"]})


if __name__ == "__main__":
    run(label_selected)
