"""Held-out samples become IoU: the extractor against the teacher and against the judge."""

from pathlib import Path

from stages import run


def evaluate_extractor(
    checkpoint: Path,
    latents: Path,
    masks: Path,
    extractor: Path,
    predictions: Path,
    metrics: Path,
    *,
    compute: str,
    device: str,
    judge_masks: Path | None = None,  # None: no judge for these labels
    workers: int = 0,  # processes; 0: one a core
) -> None:
    """Segment the test split while it is synthesized; write masks, and scores in both protocols."""
    from pipeline.arrays import Group, write_group
    from pipeline.devices import pick_device
    from pipeline.features import Source
    from pipeline.files import write_json
    from pipeline.metrics import PixelCounts, summary
    from pipeline.prediction import predict_masks

    source = Source(str(checkpoint), str(latents), pick_device(device), compute)
    targets = {"teacher": Group(masks)}
    if judge_masks is not None:
        targets["judge"] = Group(judge_masks)
    classes = targets["teacher"].attributes["classes"]
    size = targets["teacher"].read("test", "masks", slice(0, 1)).shape[-1]
    predicted = predict_masks(str(extractor), source, "test", size, workers, classes)
    write_group(predictions, {"test/masks": predicted}, {"classes": classes})
    report = {}
    for name, group in targets.items():
        counts = PixelCounts(len(classes))
        counts.add(predicted, group.read("test", "masks"))
        report[f"against_{name}"] = summary(counts, classes)
    write_json(metrics, report)


if __name__ == "__main__":
    run(evaluate_extractor)
