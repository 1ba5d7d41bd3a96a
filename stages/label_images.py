"""Images become the teacher's masks, at the images' own size."""

from pathlib import Path

from stages import run


def label_images(
    images: Path,
    teacher: Path,
    masks: Path,
    *,
    labels: str,
    device: str,
    workers: int = 0,  # processes; 0: one a core
) -> None:
    """Label every split of `images` with the weights `teacher` in the label space `labels`."""
    from pipeline import labeling
    from pipeline.arrays import Group, write_group
    from pipeline.devices import pick_device
    from pipeline.files import sha256
    from pipeline.teachers.labels import label_space

    splits = list(Group(images).splits)
    arrays = labeling.label_images(
        str(teacher), labels, str(images), splits, pick_device(device), workers
    )
    facts = {"labels": labels, "classes": label_space(labels).classes}
    write_group(masks, arrays, facts | {"teacher": sha256(teacher)[:16]})


if __name__ == "__main__":
    run(label_images)
