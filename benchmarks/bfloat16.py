"""What synthesis in bfloat16 changes in the headline LSE's held-out mIoU."""

import time

import numpy as np

from pipeline.data.arrays import Group
from pipeline.data.features import Source
from pipeline.extractors.prediction import predict_masks
from pipeline.metrics.iou import PixelCounts, miou_dataset, miou_per_image, paired_interval


def measure() -> dict:
    """mIoU of the float32 and the bfloat16 masks of the test split, with a paired interval."""
    masks = Group("data/masks/ffhq.zarr.zip")
    target, num = masks.read("test", "masks"), len(masks.attributes["classes"])
    result: dict = {}
    counts, drawn = {}, {}
    for dtype in ("float32", "bfloat16"):
        source = Source(
            "data/checkpoints/ffhq.safetensors", "data/latents/ffhq.zarr.zip", compute=dtype
        )
        start = time.perf_counter()
        path = "data/extractors/ffhq/lse.safetensors"
        drawn[dtype] = predict_masks([path], source, "test", target.shape[-1])[0]
        result[f"{dtype}, wall s"] = round(time.perf_counter() - start, 1)
        for metric in (miou_per_image, miou_dataset):
            score = metric(drawn[dtype], target, num).mean
            result[f"{dtype}, {metric.__name__}"] = round(100 * score, 2)
        counts[dtype] = PixelCounts(num)
        counts[dtype].add(drawn[dtype], target)
    pair = (counts["bfloat16"].intersection_union(), counts["float32"].intersection_union())
    low, high = paired_interval(*pair, "miou_per_image")
    result["bfloat16 - float32, miou_per_image"] = f"{100 * low:.3f} .. {100 * high:.3f}"
    agree = np.mean(drawn["float32"] == drawn["bfloat16"])
    result["pixels with the same class, %"] = round(100 * float(agree), 3)
    return result
