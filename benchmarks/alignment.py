"""Interpolation with and without align_corners: the same fit, the same held-out samples.

One of the two is the study's own fit and predictions; the other is made here by the same commands.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.memory import UNUSED
from pipeline.data.arrays import Group, write_group
from pipeline.data.features import Source
from pipeline.extractors.prediction import predict_masks
from pipeline.metrics.iou import PixelCounts, dataset_scores, paired_interval, per_image_scores
from pipeline.runtime.files import read_json

FLAGS = {False: "no-align-corners", True: "align-corners"}
ITERATIONS = 30  # as in params.yaml


def without_pool(folder: Path) -> list[str]:
    """The study's latents and masks with what a fit reads alone; returns their paths."""
    paths = []
    for name, keys in (("latents", ("seeds", "ws")), ("masks", ("masks",))):
        group, path = Group(f"data/{name}/ffhq.zarr.zip"), folder / f"{name}.zarr.zip"
        splits = [(split, key) for split in ("train", "validation") for key in keys]
        arrays = {f"{split}/{key}": group.read(split, key) for split, key in splits}
        write_group(path, arrays, group.attributes)
        paths.append(str(path))
    return paths


def fitted(folder: Path, align_corners: bool) -> str:
    """Cache the study's pixels with the flag, fit the headline LSE on them; returns its path."""
    manifest, report = (
        read_json(f"{path}.json") for path in ("data/pixels/ffhq", "data/results/ffhq/lse_fit")
    )
    latents, masks = without_pool(folder)
    words = manifest["command"]  # python -m stages.cache_pixels, four paths, options
    options = [w for w in words[7:] if not w.endswith(("align_corners", "align-corners"))]
    pixels = f"{folder}/pixels.json"
    cache = [*words[1:4], latents, masks, pixels, *options, f"--{FLAGS[align_corners]}"]
    fit = [
        "-m", "stages.fit_extractor", "data/features/ffhq.json", "data/masks/ffhq.zarr.zip", pixels,
        str(folder), str(folder), f"{folder}/costs.json", "--names", "lse", "--solver", "lbfgs",
        "--epochs", "50", "--iterations", str(ITERATIONS), "--pixel_budget", str(report["pixels"]),
        "--device", "auto", *UNUSED,
        *[word for l2 in report["l2_candidates"] for word in ("--l2", str(l2))],
    ]  # fmt: skip
    env = os.environ | {"PIPELINE_STORE": f"{folder}/store"}
    for command in (cache, fit):
        subprocess.run([sys.executable, *command], check=True, env=env)
    return f"{folder}/lse.safetensors"


def measure() -> dict:
    """Held-out mIoU of both, and a paired interval of their difference."""
    masks = Group("data/masks/ffhq.zarr.zip")
    target, num = masks.read("test", "masks"), len(masks.attributes["classes"])
    facts = read_json("data/pixels/ffhq.json")["facts"]
    ours, other = facts["align_corners"], not facts["align_corners"]
    source = Source(
        "data/checkpoints/ffhq.safetensors", "data/latents/ffhq.zarr.zip", compute=facts["compute"]
    )
    predicted = {ours: Group("data/predictions/ffhq/lse.zarr.zip").read("test", "masks")}
    with tempfile.TemporaryDirectory() as name:
        path = fitted(Path(name), other)
        predicted[other] = predict_masks([path], source, "test", target.shape[-1])[0]
    pairs: dict = {}
    result: dict = {}
    for flag, word in FLAGS.items():
        counts = PixelCounts(num)
        counts.add(predicted[flag], target)
        pairs[flag] = counts.intersection_union()
        result[f"{word}, miou_per_image"] = round(100 * per_image_scores(*pairs[flag]).mean, 2)
        result[f"{word}, miou_dataset"] = round(100 * dataset_scores(*pairs[flag]).mean, 2)
    for protocol in ("miou_per_image", "miou_dataset"):
        low, high = paired_interval(pairs[False], pairs[True], protocol)
        result[f"without - with, {protocol}, 95 %"] = f"{100 * low:.2f} .. {100 * high:.2f}"
    return result
