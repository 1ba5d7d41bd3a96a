"""What limits the teacher: its IoU on images that it was trained on, and on held-out ones.

A gap between the two is what more images would narrow; what is missing on the training images is
the network's, or that of masks that people drew differently. Also: what averaging each image with
its mirror image would add, for twice the time. FACES names the folder of images and masks.
"""

import os
from pathlib import Path

import numpy as np
import torch

from pipeline.metrics.iou import PixelCounts, dataset_scores
from pipeline.teachers.faces import load_pairs
from pipeline.teachers.labels import CELEBAMASK19, label_space
from pipeline.teachers.registry import INPUT_SIZE, load_teacher

FACES = os.environ.get("FACES", "data/faces")
SPLITS = {"train": slice(0, 100), "validation": slice(650, 750), "test": slice(750, 850)}
CLASSES = ("skin", "hair", "nose")  # those that the teacher was asked for
BATCH = 10


def measure() -> dict:
    """IoU in % of both networks, per split, with and without mirror images."""
    torch.set_num_threads(1)
    pairs = load_pairs(Path(FACES), INPUT_SIZE, len(CELEBAMASK19))
    space, result = label_space("celebamask15"), {}
    for name in ("face-unet", "face-pyramid"):
        teacher = load_teacher(f"checkpoints/{name}.safetensors")
        for split, rows in SPLITS.items():
            counts = {kind: PixelCounts(len(space.classes)) for kind in ("", ", mirrored")}
            images = pairs.images[rows].float() / 127.5 - 1
            masks = space.merge_ids(pairs.masks[rows].numpy())
            for x, wanted in zip(images.split(BATCH), _batches(masks), strict=True):
                with torch.inference_mode():
                    plain = teacher.probabilities(x, INPUT_SIZE)
                    mirrored = teacher.probabilities(x.flip(3), INPUT_SIZE).flip(3)
                for kind, found in (("", plain), (", mirrored", plain + mirrored)):
                    counts[kind].add(found.argmax(1).to(torch.uint8).numpy(), wanted)
            for kind, count in counts.items():
                scores = dataset_scores(*count.intersection_union(), background=True)
                iou = dict(zip(space.classes, scores.per_class, strict=True))
                result[f"{name}, {split}{kind}"] = {"mean of 15": round(100 * scores.mean, 1)} | {
                    c: round(100 * float(iou[c]), 1) for c in CLASSES
                }
    return result


def _batches(masks: np.ndarray) -> list[np.ndarray]:
    return [masks[i : i + BATCH] for i in range(0, len(masks), BATCH)]
