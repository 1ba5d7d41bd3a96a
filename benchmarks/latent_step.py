"""One optimization step of a latent of the 1024 px generator: what reading features saves.

Three losses of the same target: an LSE on taps up to 128 px, an LSE on all taps, and a teacher that
looks at the synthesized image. And the sum of the last 128 px tap: no segmenter can be quicker. One
sample, one thread, forward and backward pass and Adam.
"""

import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F

from pipeline.editing.optimize import (
    ByExtractor,
    ByTeacher,
    Forward,
    Rendered,
    Segmenter,
    optimize_latents,
)
from pipeline.extractors.networks import load_extractor
from pipeline.generators.registry import load_generator
from pipeline.generators.taps import Tap
from pipeline.runtime.progress import say
from pipeline.runtime.workers import keep_freed_memory
from pipeline.teachers.registry import load_teacher

STUDY, SIZE, STEPS, REPEATS = "ffhq", 256, 3, 7


def seconds(
    forward: Forward, loss: Callable[[Rendered], torch.Tensor], latents: torch.Tensor
) -> float:
    """CPU seconds a step."""

    class Clock:  # the last pass of the loop is without a gradient, so it is not counted
        last = 0.0

    def timed(x: torch.Tensor) -> Rendered:
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
    segmenters: dict[str, Segmenter] = {
        "LSE, taps to 128 px": ByExtractor(load_extractor(f"{folder}/lse_coarse.safetensors")),
        "LSE, all taps": ByExtractor(load_extractor(f"{folder}/lse.safetensors")),
        "image and teacher": ByTeacher(load_teacher("checkpoints/face-unet.safetensors")),
    }
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(1, generator.z_dim, generator=rng)
    target = torch.randint(0, 15, (1, SIZE, SIZE), generator=rng)

    def entropy(segmenter: Segmenter) -> Callable[[Rendered], torch.Tensor]:
        return lambda r: F.cross_entropy(segmenter.logits(r, SIZE), target).view(1)

    tasks = {
        name: (Forward(generator, "z", tuple(segmenter.taps), segmenter.images), entropy(segmenter))
        for name, segmenter in segmenters.items()
    }
    last = segmenters["LSE, taps to 128 px"].taps[-1]
    tasks["generator to 128 px"] = Forward(generator, "z", (last,)), lambda r: _sum(r, last)
    spent: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(REPEATS + 1):
        for name, (forward, loss) in tasks.items():
            found = seconds(forward, loss, forward.start(z))
            if turn:  # the first one warms up
                spent[name].append(found)
                say(f"{name}: {found:.3f} s")
    result: dict = {f"{name}, CPU s a step": round(median(s), 3) for name, s in spent.items()}
    coarse, every, image, bare = spent.values()
    for name, ours, other in (
        ("LSE to 128 px / image and teacher", coarse, image),
        ("generator to 128 px / image and teacher", bare, image),
        ("LSE to 128 px / LSE, all taps", coarse, every),
    ):
        ratios = [a / b for a, b in zip(ours, other, strict=True)]
        result[name] = round(median(ratios), 3)
        result[f"{name}, range"] = [round(min(ratios), 3), round(max(ratios), 3)]
    return result


def _sum(rendered: Rendered, tap: Tap) -> torch.Tensor:
    return rendered.features[tap.name].sum().view(1)
