"""Train a face-parsing network on a folder of images and masks: resumable, on CPU or GPU."""

import math
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.metrics.iou import PixelCounts, dataset_scores, summary
from pipeline.runtime.devices import channels_last, fast_bfloat16
from pipeline.runtime.errors import InputError, choose
from pipeline.runtime.files import atomic, fingerprint, sha256
from pipeline.runtime.progress import say
from pipeline.runtime.weights import read_safetensors, write_safetensors
from pipeline.teachers.faces import Pairs, augment, load_pairs, sampling_weights
from pipeline.teachers.labels import CELEBAMASK19, label_space
from pipeline.teachers.networks import NETWORKS
from pipeline.teachers.options import Recipe
from pipeline.teachers.registry import INPUT_SIZE, Teacher

NUM_CLASSES = len(CELEBAMASK19)


def split(pairs: Pairs, recipe: Recipe) -> tuple[Pairs, Pairs, Pairs]:
    """Training, validation and test pairs by sorted name; `train_part` halves the first."""
    wanted = recipe.train + recipe.validation + recipe.test
    if len(pairs.images) < wanted:
        raise InputError(
            f"{len(pairs.images)} pairs",
            f"{wanted} ({recipe.train} + {recipe.validation} + {recipe.test})",
            "lower train, validation or test",
        )
    half = recipe.train // 2
    rows = {
        "all": slice(0, recipe.train),
        "first": slice(0, half),
        "second": slice(half, recipe.train),
    }
    train = pairs.part(rows[choose("train part", recipe.train_part, rows)])
    end = recipe.train + recipe.validation
    return train, pairs.part(slice(recipe.train, end)), pairs.part(slice(end, end + recipe.test))


def train(
    folder: Path,  # holds images/ and masks/
    weights: Path,  # written at the end
    recipe: Recipe,
    state: Path,  # training state, for resuming
    device: torch.device,
    start: Path | None = None,  # weights of the same architecture to go on from
    evaluate_every: int = 400,  # steps between lines of validation scores
    save_every: int = 200,  # steps between states
) -> dict:
    """Train, write `weights` with its facts, and return the held-out scores.

    AdamW with a warm-up and a cosine; the exponential moving average of the weights is what is
    kept. Loss: cross-entropy weighted by frequency^-0.25, plus batch Dice over present classes.
    The second phase, `polish`, drops the class weights and half of the augmentation.
    Every random draw depends on (seed, step) alone, so a resumed run repeats the same steps.
    """
    network, origin = _first_network(recipe, start, device)
    pairs = load_pairs(folder, INPUT_SIZE, NUM_CLASSES)
    training, validation, test = split(pairs, recipe)
    say(f"{len(training.images)} training pairs, data {pairs.digest}, device {device}")

    average = {k: v.clone() for k, v in network.state_dict().items()}
    optimizer = _optimizer(network)
    identity = fingerprint(asdict(recipe) | {"data": pairs.digest} | origin)
    first = _resume(state, identity, network, average, optimizer)

    weight = _class_weights(training.masks).to(device)
    draw = sampling_weights(training.masks, NUM_CLASSES)
    training = training.to(device)
    for step in range(first, recipe.all_steps):
        if step == recipe.steps:  # the second phase starts from the average
            network.load_state_dict(average)
            optimizer = _optimizer(network)
        images, masks = _batch(training, draw, recipe, step)
        _set_rate(optimizer, recipe.learning_rate * _schedule(step, recipe))
        loss = _descend(network, optimizer, images, masks, weight if step < recipe.steps else None)
        _follow(average, network, decay=min(0.998, (step + 1) / (step + 10)))

        if (step + 1) % evaluate_every == 0:
            miou = _mean(_score(type(network), average, validation, device))
            say(f"step {step + 1}/{recipe.all_steps}: loss {loss:.3f}, validation mIoU {miou:.4f}")
        if (step + 1) % save_every == 0:
            _save(state, identity, step + 1, network, average, optimizer)

    report = _held_out(type(network), average, validation, test, device)
    facts = asdict(recipe) | {"data": pairs.digest, "scores": report} | origin
    write_safetensors(weights, {k: v.half() for k, v in average.items()}, facts)
    state.unlink(missing_ok=True)
    return facts


def _first_network(
    recipe: Recipe, start: Path | None, device: torch.device
) -> tuple[torch.nn.Module, dict[str, str]]:
    """A network of drawn weights, or of those of `start`; and which ones these are."""
    network_class = NETWORKS[choose("teacher architecture", recipe.architecture, NETWORKS)]
    torch.manual_seed(recipe.seed)
    network = network_class(NUM_CLASSES)
    origin = _start_from(start, network) if start else {}
    return channels_last(network.to(device)), origin


def _batch(training: Pairs, draw: Tensor, recipe: Recipe, step: int) -> tuple[Tensor, Tensor]:
    """Augmented images and masks of a step, drawn with the weights `draw`."""
    rng = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    torch.manual_seed(recipe.seed * 1_000_003 + step)  # dropout draws from the global one
    rows = torch.multinomial(draw, recipe.batch, generator=rng)
    strength = 1.0 if step < recipe.steps else 0.5
    images, masks = augment(training.images[rows], training.masks[rows], rng, strength)
    return images.contiguous(memory_format=torch.channels_last), masks


def _descend(
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    masks: Tensor,
    weight: Tensor | None,  # of the classes
) -> Tensor:
    """One step on a batch; returns its loss."""
    device = images.device.type
    with torch.autocast(device, torch.bfloat16, fast_bfloat16(device)):
        logits = network.train()(images)
    loss = _loss(logits.float(), masks, weight)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return loss


def _start_from(path: Path, network: torch.nn.Module) -> dict[str, str]:
    """Load a teacher's weights into `network`; returns which ones they are."""
    tensors, facts = read_safetensors(path)
    try:
        network.load_state_dict({name: value.float() for name, value in tensors.items()})
    except RuntimeError:
        raise InputError(
            f"{path} of architecture {facts.get('architecture')}",
            "weights of the architecture to train",
            "name weights of that architecture, or leave --start out",
        ) from None
    return {"start": str(path), "start_sha256": sha256(path)[:16]}


def _optimizer(network: torch.nn.Module) -> torch.optim.AdamW:
    """AdamW, whose rate each step sets."""
    fused = next(network.parameters()).device.type == "cuda"
    return torch.optim.AdamW(network.parameters(), 0.0, weight_decay=0.02, fused=fused)


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _class_weights(masks: Tensor) -> Tensor:
    frequency = torch.bincount(masks.flatten().long(), minlength=NUM_CLASSES).double()
    weight = (frequency / frequency.sum()).clamp_min(1e-5) ** -0.25
    return (weight / weight.mean()).float()


def _loss(logits: Tensor, masks: Tensor, weight: Tensor | None) -> Tensor:
    cross_entropy = F.cross_entropy(logits, masks, weight)
    hit = F.one_hot(masks, NUM_CLASSES).permute(0, 3, 1, 2).float()
    probability = logits.softmax(1)
    overlap, area = (probability * hit).sum((0, 2, 3)), hit.sum((0, 2, 3))
    dice = (2 * overlap + 1) / (probability.sum((0, 2, 3)) + area + 1)
    return cross_entropy + 0.5 * (1 - dice[area > 0]).mean()


def _schedule(step: int, recipe: Recipe) -> float:
    """A warm-up and a cosine for each phase, as a factor of the peak learning rate."""
    second = step >= recipe.steps
    start, length = (recipe.steps, recipe.polish) if second else (0, recipe.steps)
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


def _score(
    network_class: type, state: dict, pairs: Pairs, device: torch.device, through: int | None = None
) -> PixelCounts:
    """Count held-out pixels on the 15 merged classes; `through` shrinks the images first."""
    network = network_class(NUM_CLASSES)
    network.load_state_dict(state)
    labels = label_space("celebamask15")
    teacher = Teacher(channels_last(network), labels).to(device)
    counts = PixelCounts(len(labels.classes))
    for start in range(0, len(pairs.images), 10):
        images = pairs.images[start : start + 10].float() / 127.5 - 1
        if through:
            images = F.interpolate(images, (through, through), mode="area")
        predicted = teacher.label(images, INPUT_SIZE)
        counts.add(predicted, labels.merge_ids(pairs.masks[start : start + 10].numpy()))
    return counts


def _held_out(
    network_class: type, state: dict, validation: Pairs, test: Pairs, device: torch.device
) -> dict[str, dict]:
    """Scores of both parts, and of the test part shrunk to 64 px."""
    report = {
        name: _report(_score(network_class, state, part, device))
        for name, part in {"validation": validation, "test": test}.items()
    }
    return report | {"test_64px": _report(_score(network_class, state, test, device, through=64))}


def _report(counts: PixelCounts) -> dict:
    result = summary(counts, label_space("celebamask15").classes)
    return result | {"miou_dataset_with_background": round(100 * _mean(counts), 3)}


def _mean(counts: PixelCounts) -> float:
    """`miou_dataset`, background included."""
    return dataset_scores(*counts.intersection_union(), background=True).mean


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
