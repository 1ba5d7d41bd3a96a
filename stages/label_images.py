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
    from pipeline.teachers import load_teacher

    kept = None if keep is None else read_json(keep)["kept"]
    digest, space = sha256(teacher)[:16], load_teacher(teacher, labels, keep=kept).labels
    arrays = labeling.label_images(
        str(teacher),
        labels,
        str(images),
        list(Group(images).splits),
        pick_device(device),
        workers,
        kept,
    )
    facts = {"labels": labels if kept is None else space.name, "classes": space.classes}
    write_group(masks, arrays, facts | {"teacher": digest})


if __name__ == "__main__":
    run(label_images)
