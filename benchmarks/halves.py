"""What half of the teacher's training images costs: may teacher and judge learn from disjoint ones?

Four trainings of one length: each of the two networks on all images and on its half. FACES names
the folder of images and masks, HALVES_STEPS the length (of 16 images each; the last fifth is the
second phase), HALVES_FOLDER where weights and states are kept: a killed run goes on there, and what
it finished is not trained again. On a GPU the four run side by side.
"""

import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from pipeline.runtime.devices import pick_device
from pipeline.runtime.weights import read_safetensors
from pipeline.teachers.options import Recipe
from pipeline.teachers.training import train

FACES = os.environ.get("FACES", "data/faces")
STEPS = int(os.environ.get("HALVES_STEPS", 1000))
NETWORKS = {"teacher": ("unet", "first", 0), "judge": ("feature_pyramid", "second", 1)}  # and seed
CLASSES = ("skin", "hair", "nose")  # those that the teacher was asked for

Task = tuple[Path, str, str, str]  # folder, device, role, part of the training images


def measure() -> dict:
    """Held-out mIoU over the 15 classes after each training, and the differences."""
    if folder := os.environ.get("HALVES_FOLDER"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        return _measure(Path(folder))
    with tempfile.TemporaryDirectory() as temporary:
        return _measure(Path(temporary))


def _measure(folder: Path) -> dict:
    device = pick_device("auto")
    runs = [(role, part) for role, (_, half, _) in NETWORKS.items() for part in ("all", half)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1 if device == "cpu" else len(runs), context) as pool:
        tasks = [(folder, device, *run) for run in runs]
        scores = dict(zip(runs, pool.map(_train, tasks), strict=True))
    result: dict = {"steps": STEPS}
    for split in ("validation", "test"):
        for (role, part), score in scores.items():
            result[f"{role}, {part}, {split}"] = _named(score[split])
        for role, (_, half, _) in NETWORKS.items():
            whole, less = (_named(scores[role, part][split]) for part in ("all", half))
            lost = {name: round(whole[name] - less[name], 2) for name in whole}
            result[f"{role}, {split}, points lost by half the images"] = lost
    return result


def _train(task: Task) -> dict[str, dict]:
    """The scores of a network's training on a part of the images, by split."""
    folder, device, role, part = task
    torch.set_num_threads(1)
    architecture, _, seed = NETWORKS[role]
    polish = STEPS // 5
    recipe = Recipe(
        architecture=architecture,
        train=650,
        validation=100,
        test=100,
        train_part=part,
        steps=STEPS - polish,
        batch=16,
        learning_rate=0.004,
        seed=seed,
        polish=polish,
    )
    weights, state = (folder / f"{role}-{part}.{kind}" for kind in ("safetensors", "state"))
    if weights.exists():
        facts = read_safetensors(weights)[1]
        if all(facts.get(name) == value for name, value in vars(recipe).items()):
            return facts["scores"]
    return train(Path(FACES), weights, recipe, state, torch.device(device))["scores"]


def _named(score: dict) -> dict[str, float]:
    iou, mean = score["miou_dataset"]["per_class"], score["miou_dataset_with_background"]
    return {"mean of 15": mean} | {name: iou[name] for name in CLASSES}
