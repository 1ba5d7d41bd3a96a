"""Few-shot fits against the paper's Adam, on the same cached taps of the 1024 px study.

The recipe: learning rate 1e-3, divided by 10 after 40 % of 6400 / 1600 / 800 / 400 steps at 1 / 4 /
8 / 16 shots, all pixels of every sample in each step, no L2. That is 6,400 passes a problem.
FEWSHOT_REPEATS (default 5) says how many of the disjoint draws run, FEWSHOT_SHARE (default 1) which
share of the recipe's steps, with its decay in proportion, FEWSHOT_SHOTS (default 1,4,8,16) which
numbers of shots; all are printed.
"""

import os
import time
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from pipeline.analysis.fewshot import selection
from pipeline.analysis.fewshot.fits import Task, fit
from pipeline.analysis.fewshot.options import Rule
from pipeline.analysis.fewshot.pool import Part, Pool
from pipeline.data.pixels import draw_pixels, hypercolumns
from pipeline.data.stores import open_store
from pipeline.extractors.networks import LSE
from pipeline.extractors.recipe import LEARNING_RATE, CachedSamples, Sample, logits_fast
from pipeline.generators.taps import Tap
from pipeline.metrics.iou import PixelCounts, dataset_scores, per_image_scores
from pipeline.runtime.files import read_json
from pipeline.runtime.progress import say
from pipeline.runtime.workers import keep_freed_memory

STUDY = "ffhq"
# As in params.yaml, section fewshot_rule.
RULE, SEED = Rule(power=0.5, l2=0.01, iterations=40, pixels_per_sample=1024), 0
STEPS = {1: 6400, 4: 1600, 8: 800, 16: 400}
SHOTS = [int(num) for num in os.environ.get("FEWSHOT_SHOTS", "1,4,8,16").split(",")]
SHARE = float(os.environ.get("FEWSHOT_SHARE", 1))
REPEATS, DRAWS = int(os.environ.get("FEWSHOT_REPEATS", 5)), 5


def decoded(sample: Sample) -> list[torch.Tensor]:
    return [
        x.float() if s is None else x.float() * s[:, None, None]
        for x, s in zip(sample.taps, sample.scales, strict=True)
    ]


def annotated(samples: CachedSamples, row: int, rule: Rule, num_classes: int, align: bool) -> Part:
    """The drawn pixels of one sample."""
    mask = samples.masks[row]
    drawn = draw_pixels(mask, rule.pixels_per_sample, row, num_classes)
    x = hypercolumns(decoded(samples[row]), drawn.places, mask.shape[-1], align).bfloat16()
    y, weights = torch.from_numpy(drawn.classes).long(), torch.from_numpy(drawn.weights)
    return Part(x, y, weights / weights.sum())


def recipe(samples: CachedSamples, rows: Sequence[int], classes: Sequence[str], align: bool) -> LSE:
    """Adam on whole images."""
    torch.manual_seed(0)
    extractor = LSE(classes, samples.taps, align_corners=align)
    weights, steps = list(extractor.weights), int(SHARE * STEPS[len(rows)])
    optimizer = torch.optim.Adam(weights, LEARNING_RATE)
    for step in range(steps):
        if step == int(0.4 * steps):
            optimizer.param_groups[0]["lr"] = LEARNING_RATE / 10
        for row in rows:
            sample = samples[row]
            loss = F.cross_entropy(logits_fast(weights, sample, align), sample.mask[None])
            (loss / len(rows)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return extractor.requires_grad_(False)


def scores(extractor: LSE, test: CachedSamples) -> list[float]:
    from pipeline.extractors.recipe import predict_cached

    counts = PixelCounts(len(extractor.classes))
    counts.add(predict_cached(extractor, test), test.masks)
    pair = counts.intersection_union()
    return [100 * per_image_scores(*pair).mean, 100 * dataset_scores(*pair).mean]


def measure() -> dict:
    """CPU seconds and mIoU of both, for every number of shots."""
    torch.set_num_threads(1)
    keep_freed_memory()
    store = open_store(f"data/features/{STUDY}.json")
    facts = read_json(f"data/pixels/{STUDY}.json")["facts"]
    cached = {array.name for array in store.plan.arrays}
    taps = [Tap(**tap) for tap in facts["taps"] if tap["name"] in cached]
    pool, test = (
        CachedSamples(store, f"data/masks/{STUDY}.zarr.zip", split, taps, "cpu")
        for split in ("pool", "test")
    )
    classes, align = facts["classes"], facts["align_corners"]
    draws = selection.disjoint_draws(len(pool), max(STEPS), DRAWS, SEED)[:REPEATS]
    parts, begun = Pool(), time.process_time()
    for row in np.unique(draws):
        parts.parts[int(row), 0] = annotated(pool, int(row), RULE, len(classes), align)
    building = time.process_time() - begun
    result: dict = {"repeats of each shot count": len(draws)}
    result["recipe: share of its steps that ran"] = SHARE
    total = {"ours": building, "recipe": 0.0}
    for shots in SHOTS:
        found: dict[str, list] = {"ours": [], "recipe": []}
        for rows in draws[:, :shots].tolist():
            begun = time.process_time()
            ours = LSE(classes, taps, align_corners=align).requires_grad_(False)
            task = Task(tuple(rows), 0)
            ours.set_matrix(fit(parts, task, RULE, len(classes)))
            middle = time.process_time()
            theirs = recipe(pool, rows, classes, align)
            end = time.process_time()
            found["ours"].append([middle - begun, *scores(ours, test)])
            found["recipe"].append([end - middle, *scores(theirs, test)])
            say(f"{shots} shots: {found}")
        for name, values in found.items():
            cpu, per_image, dataset = np.mean(values, 0)
            total[name] += float(np.sum(values, 0)[0])
            result[f"{shots} shots, {name}: CPU s / per_image / dataset"] = [
                round(float(v), 2) for v in (cpu, per_image, dataset)
            ]
    result["ours: CPU s to look the pixels up, in all"] = round(building, 1)
    result["CPU s in all: ours / recipe"] = [round(v, 1) for v in total.values()]
    result["ratio, of what ran"] = round(total["recipe"] / total["ours"], 1)
    return result
