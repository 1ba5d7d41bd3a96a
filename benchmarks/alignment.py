"""Interpolation with and without align_corners: the same fit, the same held-out samples."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pipeline.arrays import Group
from pipeline.features import Source
from pipeline.files import read_json
from pipeline.metrics import PixelCounts, dataset_scores, paired_interval, per_image_scores
from pipeline.prediction import predict_masks


def fitted(folder: Path, flag: str) -> str:
    """Cache pixels of the 1024 px study with `flag` and fit the headline LSE on them."""
    f = str(folder)
    candidates = read_json("reports/metrics/ffhq/lse_fit.json")["l2_candidates"]
    study = ["data/checkpoints/ffhq.safetensors", "data/latents/ffhq.zarr", "data/masks/ffhq.zarr"]
    env = os.environ | {"PIPELINE_STORE": f"{f}/store"}
    stage = [sys.executable, "-m"]
    subprocess.run(
        [*stage, "stages.cache_pixels", *study, f"{f}/pixels.json", flag,
         "--pixels_per_sample", "512", "--samples_per_shard", "8", "--stored", "int8",
         "--compute", "float32", "--device", "cpu", "--max_gib", "8"],
        check=True, env=env,
    )  # fmt: skip
    subprocess.run(
        [*stage, "stages.fit_extractor", "data/features/ffhq.json", "data/masks/ffhq.zarr",
         f"{f}/pixels.json", f"{f}/lse.safetensors", f"{f}/fit.json", "--name", "lse",
         "--solver", "lbfgs", "--epochs", "50", "--iterations", "30",
         "--pixel_budget", "131072", "--device", "cpu",
         *[word for v in candidates for word in ("--l2", str(v))]],
        check=True, env=env,
    )  # fmt: skip
    return f"{f}/lse.safetensors"


def measure() -> dict:
    """Held-out mIoU of both, and a paired interval of their difference."""
    masks = Group("data/masks/ffhq.zarr")
    target, num = masks.read("test", "masks"), len(masks.attributes["classes"])
    source = Source("data/checkpoints/ffhq.safetensors", "data/latents/ffhq.zarr")
    counts, result = {}, {}
    for flag in ("--align-corners", "--no-align-corners"):
        with tempfile.TemporaryDirectory() as name:
            path = fitted(Path(name), flag)
            predicted = predict_masks(path, source, "test", target.shape[-1])
        counts[flag] = PixelCounts(num)
        counts[flag].add(predicted, target)
        pair = counts[flag].intersection_union()
        result[f"{flag[2:]}, miou_per_image"] = round(100 * per_image_scores(*pair).mean, 2)
        result[f"{flag[2:]}, miou_dataset"] = round(100 * dataset_scores(*pair).mean, 2)
    with_it, without = (counts[f].intersection_union() for f in counts)
    low, high = paired_interval(without, with_it, "miou_per_image")
    result["without - with, miou_per_image, 95 %"] = f"{100 * low:.2f} .. {100 * high:.2f}"
    return result
