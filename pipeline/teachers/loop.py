"""The loop that trains a segmentation network: resumable, on CPU or GPU."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.data.palette import UNLABELED
from pipeline.runtime.devices import fast_bfloat16
from pipeline.runtime.files import atomic
from pipeline.runtime.progress import say
from pipeline.teachers.faces import Pairs, augment
from pipeline.teachers.labels import FLIP19
from pipeline.teachers.options import Schedule


@dataclass(frozen=True)
class Lesson:
    """What a network learns from, and what says how far it is."""

    pairs: Pairs  # with weights of pixels, if they differ
    draws: tuple[Tensor, Tensor]  # how often to draw each pair [N], in the first and second phase
    class_weights: Tensor  # of the loss, in the first phase
    validate: Callable[[dict[str, Tensor]], float]  # mIoU by some weights
    identity: str  # names data and recipe: the state of another lesson is not gone on with
    swap: Sequence[int] = FLIP19  # what a flip makes of each class


def fit(
    network: torch.nn.Module,
    lesson: Lesson,
    schedule: Schedule,
    state: Path,  # training state, for resuming
    evaluate_every: int,  # steps between lines of validation scores
    save_every: int,  # steps between states
) -> dict[str, Tensor]:
    """Train `network`; returns the moving average of its weights, which is what is kept.

    AdamW with a warm-up and a cosine. Loss: cross-entropy weighted by frequency^-0.25, plus batch
    Dice over present classes. The second phase, `polish`, starts from the average and drops the
    class weights and half of the augmentation. Every random draw depends on (seed, step) alone, so
    a resumed run repeats the same steps.
    """
    average = {k: v.clone() for k, v in network.state_dict().items()}
    optimizer = _optimizer(network)
    first = _resume(state, lesson.identity, network, average, optimizer)
    pairs = lesson.pairs.to(next(network.parameters()).device)
    for step in range(first, schedule.all_steps):
        if step == schedule.steps:  # the second phase starts from the average
            network.load_state_dict(average)
            optimizer = _optimizer(network)
        batch = _batch(pairs, lesson, schedule, step)
        _set_rate(optimizer, schedule.learning_rate * _rate(step, schedule))
        class_weights = lesson.class_weights if step < schedule.steps else None
        loss = _descend(network, optimizer, batch, class_weights)
        _follow(average, network, decay=min(0.998, (step + 1) / (step + 10)))

        if (step + 1) % evaluate_every == 0:
            miou, done = lesson.validate(average), f"{step + 1}/{schedule.all_steps}"
            say(f"step {done}: loss {loss:.3f}, validation mIoU {miou:.4f}")
        if (step + 1) % save_every == 0:
            _save(state, lesson.identity, step + 1, network, average, optimizer)
    return average


Batch = tuple[Tensor, Tensor, Tensor | None]  # images, masks, weights of pixels


def _batch(pairs: Pairs, lesson: Lesson, schedule: Schedule, step: int) -> Batch:
    """Augmented images, masks and weights of a step, drawn with the weights of its phase."""
    rng = torch.Generator().manual_seed(schedule.seed * 1_000_003 + step)
    torch.manual_seed(schedule.seed * 1_000_003 + step)  # dropout draws from the global one
    second = step >= schedule.steps
    draw = lesson.draws[second]
    again = int((draw > 0).sum()) < schedule.batch  # too few for a batch of different ones
    rows = torch.multinomial(draw, schedule.batch, again, generator=rng)
    weights = None if pairs.weights is None else pairs.weights[rows]
    images, masks, weights = augment(
        pairs.images[rows], pairs.masks[rows], rng, 0.5 if second else 1.0, lesson.swap, weights
    )
    return images.contiguous(memory_format=torch.channels_last), masks, weights


def _descend(
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    class_weights: Tensor | None,
) -> Tensor:
    """One step on a batch; returns its loss."""
    images, masks, weights = batch
    device = images.device.type
    with torch.autocast(device, torch.bfloat16, fast_bfloat16(device)):
        logits = network.train()(images)
    loss = _loss(logits.float(), masks, class_weights, weights)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return loss


def _optimizer(network: torch.nn.Module) -> torch.optim.AdamW:
    """AdamW, whose rate each step sets."""
    fused = next(network.parameters()).device.type == "cuda"
    return torch.optim.AdamW(network.parameters(), 0.0, weight_decay=0.02, fused=fused)


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def class_weights(masks: Tensor, num_classes: int) -> Tensor:
    """Weights of the classes in the loss: their frequency^-0.25, of mean 1."""
    known = masks[masks != UNLABELED]
    frequency = torch.bincount(known.long(), minlength=num_classes).double()
    weight = (frequency / frequency.sum()).clamp_min(1e-5) ** -0.25
    return (weight / weight.mean()).float()


def _loss(
    logits: Tensor,
    masks: Tensor,
    class_weights: Tensor | None = None,
    weights: Tensor | None = None,  # of pixels, like masks; 0 where there is no label
) -> Tensor:
    """Cross-entropy, and Dice over the classes that the batch shows."""
    if weights is None:
        weights = logits.new_ones(())
        cross_entropy = F.cross_entropy(logits, masks, class_weights)
    else:
        masks = masks.where(masks != UNLABELED, 0)
        by_pixel = F.cross_entropy(logits, masks, class_weights, reduction="none")
        shares = weights if class_weights is None else weights * class_weights[masks]
        cross_entropy = (by_pixel * weights).sum() / shares.sum().clamp_min(1e-6)
        weights = weights[:, None]
    hit = F.one_hot(masks, logits.shape[1]).permute(0, 3, 1, 2).float() * weights
    probability = logits.softmax(1)
    overlap, area = (probability * hit).sum((0, 2, 3)), hit.sum((0, 2, 3))
    dice = (2 * overlap + 1) / ((probability * weights).sum((0, 2, 3)) + area + 1)
    return cross_entropy + 0.5 * (1 - dice[area > 0]).mean()


def _rate(step: int, schedule: Schedule) -> float:
    """A warm-up and a cosine for each phase, as a factor of the peak learning rate."""
    second = step >= schedule.steps
    start, length = (schedule.steps, schedule.polish) if second else (0, schedule.steps)
    warm_up = min(1.0, (step - start + 1) / 100)
    peak = 0.25 if second else 1.0
    return peak * warm_up * (0.5 + 0.5 * math.cos(math.pi * (step - start) / length))


@torch.no_grad()
def _follow(average: dict[str, Tensor], network: torch.nn.Module, decay: float) -> None:
    followed, leading = [], []
    for name, value in network.state_dict().items():
        if value.dtype.is_floating_point:
            followed.append(average[name])
            leading.append(value)
        else:
            average[name].copy_(value)
    torch._foreach_lerp_(followed, leading, 1 - decay)  # one kernel for all of them on a GPU


def _save(
    path: Path,
    identity: str,
    step: int,
    network: torch.nn.Module,
    average: dict,
    optimizer: torch.optim.Optimizer,
) -> None:
    with atomic(path) as partial:
        torch.save(
            {
                "identity": identity,
                "step": step,
                "network": network.state_dict(),
                "average": average,
                "optimizer": optimizer.state_dict(),
            },
            partial,
        )


def _resume(
    path: Path,
    identity: str,
    network: torch.nn.Module,
    average: dict,
    optimizer: torch.optim.Optimizer,
) -> int:
    if not path.exists():
        return 0
    saved = torch.load(path, map_location=next(network.parameters()).device, weights_only=True)
    if saved["identity"] != identity:
        say(f"{path} belongs to another recipe or data set; starting anew")
        return 0
    network.load_state_dict(saved["network"])
    optimizer.load_state_dict(saved["optimizer"])
    average.update(saved["average"])
    say(f"resuming at step {saved['step']}")
    return saved["step"]
