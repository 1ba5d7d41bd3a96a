"""One training loop for every extractor: Adam on windows of cached samples (the paper, section 3).

The loss is the mean cross-entropy over all pixels against the teacher's mask, background included.
Each step estimates it without bias from a few windows, which tile the masks. The logits of a window
are those of the whole maps, borders included, at a small share of the work. Windows with rare
classes are drawn more often and weighted less, as are the pixels of the linear fits.
"""

import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.extractors.networks import Extractor, Window
from pipeline.extractors.recipe import CachedSamples, Sample
from pipeline.metrics.iou import PixelCounts, dataset_scores
from pipeline.runtime.devices import channels_last, fast_bfloat16
from pipeline.runtime.errors import InputError
from pipeline.runtime.progress import LOG_SECONDS, say
from pipeline.runtime.workers import keep_freed_memory

PLACES = 4  # windows of a step lie at as many places of the mask
BY_CLASS = 0.5  # share of the draws that falls evenly on the classes; the rest is uniform
LOOK_SAMPLES = 32  # of the validation split, evenly spread: a look at all would take long
POWER_SAMPLES = 64  # that the channels' power is measured on
WARM_UP = 0.05  # share of the steps in which the rate rises

Scales = Sequence[Float[Tensor, " _"]]  # a factor per tap and channel


@dataclass(frozen=True)
class Schedule:
    """How long to train, on how much at a time, and when to look at the validation samples."""

    steps: int
    batch: int  # windows a step
    window: int  # side of a window, label px; a larger one than the mask means all of it
    learning_rate: float  # the peak: a linear warm-up to it, then a cosine to 0
    looks: int  # at the validation samples, evenly spread; the best one's weights are kept
    patience: int  # looks without a gain after which to stop
    seed: int = 0


def train(
    extractor: Extractor,  # with its initial weights; trained in place
    samples: CachedSamples,
    held: CachedSamples,  # the validation split
    schedule: Schedule,
) -> dict:
    """Train, keep the weights with the highest validation mIoU, return the facts of the fit.

    The inputs are divided by their root mean square, which is folded into the first weights at the
    end; they are not centered. The score is `miou_dataset` of the validation samples.
    """
    keep_freed_memory()
    if not len(samples) or not len(held):
        raise InputError("a split without samples", "at least one", "raise train and validation")
    rng, size = np.random.default_rng(schedule.seed), samples.masks.shape[-1]
    windows = tiles(size, min(schedule.window, size))
    chances, looks = draw_chances(samples.masks, windows), look_steps(schedule)
    scales = [1 / power for power in root_mean_squares(samples)]
    channels_last(extractor.to(samples.device)).train()
    optimizer = torch.optim.Adam(extractor.parameters(), schedule.learning_rate)

    curve, losses, last = [], [], time.perf_counter()
    best = copy.deepcopy(extractor.state_dict())
    for step in range(1, schedule.steps + 1):
        optimizer.param_groups[0]["lr"] = schedule.learning_rate * rate(step, schedule.steps)
        parts = []
        for window, rows, weights in draw(windows, chances, schedule.batch, rng):
            parts.append((window, [samples[row] for row in rows], weights))
        losses.append(_descend(extractor, optimizer, parts, scales, step))

        if step in looks:
            passes, loss = step * schedule.batch / len(samples), float(np.mean(losses))
            miou = 100 * validation_miou(extractor, held, scales)
            point = {"passes": round(passes, 3), "loss": round(loss, 5), "miou": round(miou, 3)}
            curve.append({"step": step} | point)
            losses = []
            if best_look(curve) == len(curve) - 1:
                best = copy.deepcopy(extractor.state_dict())
            if len(curve) - 1 - best_look(curve) >= schedule.patience:
                break
        if time.perf_counter() - last > LOG_SECONDS:
            last = time.perf_counter()
            say(f"training: step {step}/{schedule.steps}, looks so far {curve}")

    extractor.load_state_dict(best)
    extractor.absorb(scales)
    return _facts(extractor, schedule, curve, step)


def _facts(extractor: Extractor, schedule: Schedule, curve: list[dict], steps_done: int) -> dict:
    """What a fit was and which of its looks was chosen."""
    chosen = curve[best_look(curve)]
    say(f"chose step {chosen['step']} of {steps_done}: {chosen['miou']:.2f}")
    return {
        "solver": "training",
        **asdict(schedule),
        "steps_done": steps_done,
        "passes": curve[-1]["passes"],
        "chosen_step": chosen["step"],
        "validation_miou": chosen["miou"],
        "training_curve": curve,
        "parameters": sum(p.numel() for p in extractor.parameters()),
    }


Part = tuple[Window, Sequence[Sample], np.ndarray]  # samples seen through one window, weighted


def _descend(
    extractor: Extractor,
    optimizer: torch.optim.Optimizer,
    parts: Sequence[Part],
    scales: Scales,
    step: int,
) -> float:
    """One step on a batch; returns its loss, InputError if that is not finite."""
    optimizer.zero_grad(set_to_none=True)
    loss = backward(extractor, parts, scales)
    if not math.isfinite(loss):
        raise InputError(f"a loss of {loss} at step {step}", "a finite one", "lower learning_rate")
    optimizer.step()
    return loss


def backward(extractor: Extractor, parts: Sequence[Part], scales: Scales) -> float:
    """Add the gradient of a batch's weighted mean loss to the parameters; return the loss."""
    total, count = 0.0, sum(len(batch) for _, batch, _ in parts)
    for window, batch, weights in parts:
        losses = window_losses(extractor, batch, scales, window)
        loss = losses @ torch.as_tensor(weights, dtype=losses.dtype, device=losses.device) / count
        loss.backward()
        total += float(loss.detach())
    return total


def window_losses(
    extractor: Extractor, batch: Sequence[Sample], scales: Scales, window: Window
) -> Float[Tensor, " sample"]:
    """Mean cross-entropy of each sample over a window of its mask."""
    size = batch[0].mask.shape[-1]
    features = stack(extractor, batch, scales, extractor.regions(size, window))
    rows = slice(window.top, window.top + window.side)
    columns = slice(window.left, window.left + window.side)
    target = torch.stack([sample.mask[rows, columns] for sample in batch])
    with _autocast(target.device.type):
        logits = extractor.logits(features, size, window)
    return F.cross_entropy(logits.float(), target, reduction="none").mean((1, 2))


def stack(
    extractor: Extractor,
    batch: Sequence[Sample],
    scales: Scales,
    regions: Mapping[str, tuple[slice, slice]] | None = None,  # of each tap; None: all of it
) -> dict[str, Tensor]:
    """Scaled maps {tap name: [N, C, h, w]} of some samples, in channels-last memory."""
    features = {}
    for index, tap in enumerate(extractor.taps):
        rows, columns = regions[tap.name] if regions else (slice(None), slice(None))
        maps = [sample.taps[index][:, rows, columns] for sample in batch]
        channels, height, width = maps[0].shape
        dtype = torch.bfloat16 if fast_bfloat16(maps[0].device.type) else torch.float32
        x = torch.empty(len(batch), height, width, channels, dtype=dtype, device=maps[0].device)
        for sample, source, target in zip(batch, maps, x, strict=True):
            scale = sample.scales[index]
            factor = scales[index] if scale is None else scales[index] * scale
            target.copy_(source.permute(1, 2, 0).float() * factor)
        features[tap.name] = x.permute(0, 3, 1, 2)
    return features


def _autocast(device: str) -> torch.autocast:
    return torch.autocast(device, torch.bfloat16, fast_bfloat16(device))


@torch.inference_mode()
def validation_miou(extractor: Extractor, held: CachedSamples, scales: Scales) -> float:
    """`miou_dataset` on whole masks of LOOK_SAMPLES: mean over the classes but 0."""
    counts = PixelCounts(len(extractor.classes))
    for row in np.unique(np.linspace(0, len(held) - 1, LOOK_SAMPLES).astype(int)).tolist():
        sample = held[row]
        features = stack(extractor, [sample], scales)
        with _autocast(sample.mask.device.type):
            logits = extractor.logits(features, sample.mask.shape[-1])
        counts.add(logits.argmax(1).to(torch.uint8).cpu().numpy(), held.masks[row][None])
    return dataset_scores(*counts.intersection_union()).mean


def root_mean_squares(samples: CachedSamples) -> list[Float[Tensor, " _"]]:
    """Of each tap's channels, over the pixels of samples spread evenly over the split."""
    rows = np.unique(np.linspace(0, len(samples) - 1, POWER_SAMPLES).astype(int)).tolist()
    power = [torch.zeros(tap.channels, device=samples.device) for tap in samples.taps]
    for row in rows:
        sample = samples[row]
        for total, x, scale in zip(power, sample.taps, sample.scales, strict=True):
            square = x.float().square().mean((1, 2))
            total += square if scale is None else square * scale.square()
    # A channel that is always 0 keeps a finite factor.
    return [(total / len(rows)).sqrt().clamp_min(1e-6) for total in power]


def rate_of(name: str, rates: Sequence[str], study: str = "") -> float:
    """The learning rate of an extractor in `rates`: `<study>/<extractor>=<rate>`, for all studies
    `<extractor>=<rate>`.
    """
    found = {}
    for pair in rates:
        extractor, _, rate = pair.partition("=")
        try:
            found[extractor] = float(rate)
        except ValueError as error:
            raise InputError(
                f"learning rate {pair!r}", "<extractor>=<number>", "change learning_rates"
            ) from error
    chosen = found.get(f"{study}/{name}", found.get(name))
    if chosen is None:
        raise InputError(
            f"no learning rate of {name} among {', '.join(rates)}",
            f"{name}=<number>",
            "add it to learning_rates; `python -m benchmarks nse_rates` finds one",
        )
    return chosen


def tiles(size: int, side: int) -> list[Window]:
    """Windows that cover a mask of `size` px, each pixel once."""
    if size % side:
        raise InputError(f"window {side}", f"a divisor of the label size {size}", "change window")
    return [
        Window(top, left, side) for top in range(0, size, side) for left in range(0, size, side)
    ]


def draw_chances(
    masks: UInt8[np.ndarray, "sample height width"], windows: Sequence[Window]
) -> Float[np.ndarray, "sample window"]:
    """How likely each window of each sample is to be drawn; the sum is 1.

    A mixture: uniform, and evenly over the classes that occur, in proportion to the class's area.
    """
    classes = np.unique(masks)
    area = np.zeros((len(masks), len(windows), len(classes)))
    for place, w in enumerate(windows):
        part = masks[:, w.top : w.top + w.side, w.left : w.left + w.side]
        for index, label in enumerate(classes):
            area[:, place, index] = (part == label).sum((1, 2))
    by_class = (area / area.sum((0, 1))).mean(2)
    return (1 - BY_CLASS) / by_class.size + BY_CLASS * by_class


def draw(
    windows: Sequence[Window],
    chances: Float[np.ndarray, "sample window"],
    batch: int,  # samples in all
    rng: np.random.Generator,
) -> Iterator[tuple[Window, list[int], np.ndarray]]:
    """Yield windows, each with some samples and the weights 1 / (chance x number of choices).

    A weighted mean over the draws estimates the mean over all windows of all samples without bias.
    """
    places = min(PLACES, batch, len(windows))
    for count in np.diff(np.arange(places + 1) * batch // places):
        place = rng.choice(len(windows), p=chances.sum(0))
        given = chances[:, place] / chances[:, place].sum()
        rows = rng.choice(len(chances), count, p=given)
        yield windows[place], rows.tolist(), 1 / (chances[rows, place] * chances.size)


def rate(step: int, steps: int) -> float:
    """The learning rate of a step (from 1) as a factor of the peak."""
    warm_up = max(1, round(WARM_UP * steps))
    if step <= warm_up:
        return step / warm_up
    return 0.5 + 0.5 * math.cos(math.pi * (step - warm_up) / (steps - warm_up))


def look_steps(schedule: Schedule) -> set[int]:
    """The steps after which to look at the validation samples; the last one always."""
    looks = max(1, schedule.looks)
    return {max(1, round((look + 1) * schedule.steps / looks)) for look in range(looks)}


def best_look(curve: Sequence[dict]) -> int:
    """The look with the highest mIoU, the first of equals."""
    return int(np.argmax([look["miou"] for look in curve]))
