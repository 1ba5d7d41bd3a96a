"""Test images become the independent judge's masks: the teacher's ceiling on generated images."""

from pathlib import Path

from pipeline.runtime.options import Processes
from stages import run


def judge_teacher(
    images: Path,
    masks: Path,
    judge: Path,
    judge_masks: Path,
    metrics: Path,
    *,
    labels: str,
    machine: Processes,
) -> None:
    """Label the test images with a second network and score the teacher's masks against it."""
    from pipeline.data.arrays import Group, write_group
    from pipeline.metrics.iou import PixelCounts, summary
    from pipeline.runtime.devices import pick_device
    from pipeline.runtime.errors import InputError
    from pipeline.runtime.files import write_json
    from pipeline.teachers.labeling import Job, label_images
    from pipeline.teachers.registry import load_teacher

    classes, ours = load_teacher(judge, labels).classes, Group(masks).attributes["classes"]
    if list(classes) != list(ours):
        raise InputError(
            f"judge {judge} with classes {', '.join(classes)}",
            f"the teacher's: {', '.join(ours)}",
            "name label space and judge so that both networks speak of the same classes",
        )
    job = Job(str(judge), (labels,), str(images), pick_device(machine.device))
    (found,) = label_images(job, ["test"], machine.workers)
    write_group(judge_masks, found, {"labels": labels, "classes": classes})
    counts = PixelCounts(len(classes))
    counts.add(Group(masks).read("test", "masks"), found["test/masks"])
    write_json(metrics, summary(counts, classes))


if __name__ == "__main__":
    run(judge_teacher)
