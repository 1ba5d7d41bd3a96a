"""Held-out samples become IoU: extractors against the teacher and against the judge."""

from pathlib import Path

from pipeline.runtime.options import Machine
from stages import run
from stages.paths import Labeled


def evaluate_extractor(
    samples: Labeled,
    extractors: Path,
    predictions: Path,
    metrics: Path,
    *,
    names: list[str],
    machine: Machine,
    judge_masks: Path | None = None,  # the judge's masks (zarr); none: no judge for these labels
) -> None:
    """Segment the test split while it is synthesized, once for all `names`; write masks and scores.

    Reads `extractors`/NAME.safetensors; writes `predictions`/NAME.zarr.zip and, with the IoU in
    both protocols, `metrics`/NAME.json.
    """
    from pipeline.data.arrays import Group, write_group
    from pipeline.extractors.prediction import predict_masks
    from pipeline.metrics.iou import PROTOCOLS, PixelCounts, summary
    from pipeline.runtime.files import write_json
    from pipeline.runtime.progress import say

    source = samples.source(machine)
    targets = {"teacher": Group(samples.masks)}
    if judge_masks is not None:
        targets["judge"] = Group(judge_masks)
    classes = targets["teacher"].attributes["classes"]
    size = targets["teacher"].label_size
    paths = [str(extractors / f"{name}.safetensors") for name in names]
    predicted = predict_masks(paths, source, "test", size, machine.workers, classes)
    for name, found in zip(names, predicted, strict=True):
        write_group(predictions / f"{name}.zarr.zip", {"test/masks": found}, {"classes": classes})
        report = {}
        for target, group in targets.items():
            counts = PixelCounts(len(classes))
            counts.add(found, group.read("test", "masks"))
            report[f"against_{target}"] = summary(counts, classes)
        write_json(metrics / f"{name}.json", report)
        scores = report["against_teacher"]
        say(f"{name}: " + ", ".join(f"{p} {scores[p]['mean']:.1f} %" for p in PROTOCOLS))


if __name__ == "__main__":
    run(evaluate_extractor)
