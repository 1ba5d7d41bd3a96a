"""One optimization step of a latent of the 1024 px generator: what reading features saves.

Three losses of the same target: an LSE on taps up to 128 px, an LSE on all taps, and a teacher that
looks at the synthesized image. One sample, one thread, forward and backward pass and Adam.
"""

import time
from statistics import median

import torch
import torch.nn.functional as F

from pipeline.editing.optimize import ByExtractor, ByTeacher, Forward, optimize_latents
from pipeline.extractors import load_extractor
from pipeline.generators import load_generator
from pipeline.progress import say
from pipeline.teachers import load_teacher
from pipeline.workers import keep_freed_memory

STUDY, SIZE, STEPS, REPEATS = "ffhq", 256, 3, 7


def seconds(forward: Forward, segmenter, latents, target) -> float:
    """CPU seconds a step."""

    def loss(rendered):
        return F.cross_entropy(segmenter.logits(rendered, SIZE), target).view(1)

    class Clock:  # the last pass of the loop is without a gradient, so it is not counted
        last = 0.0

    def timed(x):
        Clock.last = time.process_time()
        return forward(x)

    start = time.process_time()
    optimize_latents(timed, latents, loss, STEPS, 0.01)
    return (Clock.last - start) / STEPS


def measure() -> dict:
    """Median CPU seconds a step, the three taking turns, and ratios of the turns' medians."""
    torch.set_num_threads(1)
    keep_freed_memory()
    generator = load_generator(f"data/checkpoints/{STUDY}.safetensors")
    folder = f"data/extractors/{STUDY}"
    segmenters = {
        "LSE, taps to 128 px": ByExtractor(load_extractor(f"{folder}/lse_coarse.safetensors")),
        "LSE, all taps": ByExtractor(load_extractor(f"{folder}/lse.safetensors")),
        "image and teacher": ByTeacher(load_teacher("checkpoints/face-unet.safetensors")),
    }
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(1, generator.z_dim, generator=rng)
    target = torch.randint(0, 15, (1, SIZE, SIZE), generator=rng)
    spent: dict[str, list[float]] = {name: [] for name in segmenters}
    for turn in range(REPEATS + 1):
        for name, segmenter in segmenters.items():
            forward = Forward(generator, "z", tuple(segmenter.taps), segmenter.images)
            found = seconds(forward, segmenter, forward.start(z), target)
            if turn:  # the first one warms up
                spent[name].append(found)
                say(f"{name}: {found:.3f} s")
    result = {f"{name}, CPU s a step": round(median(s), 3) for name, s in spent.items()}
    coarse, every, image = spent.values()
    for name, other in (("image and teacher", image), ("LSE, all taps", every)):
        ratios = [a / b for a, b in zip(coarse, other, strict=True)]
        result[f"LSE to 128 px / {name}"] = round(median(ratios), 3)
        result[f"LSE to 128 px / {name}, range"] = [round(min(ratios), 3), round(max(ratios), 3)]
    return result
