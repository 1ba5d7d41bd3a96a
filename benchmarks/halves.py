"""What half of the teacher's training images costs: may teacher and judge learn from disjoint ones?

Short trainings on all images and on their first half: same network, steps and seed. FACES names the
folder of images and masks; HALVES_STEPS (of 16 images each) the length.
"""

import os
import tempfile
from pathlib import Path

import torch

from pipeline.teacher_training import Recipe, train

FACES = os.environ.get("FACES", "data/faces")
STEPS = int(os.environ.get("HALVES_STEPS", 600))


def measure() -> dict:
    """Held-out mIoU over the 15 classes after each training, and the difference."""
    torch.set_num_threads(1)
    result, scores = {"steps": STEPS}, {}
    for part in ("all", "first"):
        recipe = Recipe("unet", 650, 100, 100, part, STEPS, 16, 0.004, seed=0)
        with tempfile.TemporaryDirectory() as folder:
            paths = Path(folder) / "weights.safetensors", Path(folder) / "state"
            facts = train(Path(FACES), paths[0], recipe, paths[1], torch.device("cpu"))
        for split in ("validation", "test"):
            score = facts["scores"][split]["miou_dataset_with_background"]
            result[f"{part}, {split}, mIoU"] = scores[part, split] = score
    for split in ("validation", "test"):
        lost = scores["all", split] - scores["first", split]
        result[f"lost by half the images, {split}, points"] = round(lost, 2)
    return result
