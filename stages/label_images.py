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
    keep: Path | None = None,  # selected classes, as select_categories writes them; None: all
    workers: int = 0,  # processes; 0: one a core
) -> None:
    """Label every split of `images` with the weights `teacher` in the label space `labels`."""
    from pipeline import labeling
    from pipeline.arrays import Group, write_group
    from pipeline.devices import pick_device
    from pipeline.files import read_json, sha256
    from pipeline.teachers.labels import label_space

    kept = None if keep is None else read_json(keep)["kept"]
    arrays = labeling.label_images(
        str(teacher),
        labels,
        str(images),
        list(Group(images).splits),
        pick_device(device),
        workers,
        kept,
    )
    space = label_space(labels) if kept is None else label_space(labels).keep(kept)
    facts = {"labels": space.name, "classes": space.classes}
    write_group(masks, arrays, facts | {"teacher": sha256(teacher)[:16]})


if __name__ == "__main__":
    run(label_images)
