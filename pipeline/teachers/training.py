"""Train a face-parsing network on a folder of images and masks: resumable, on CPU or GPU."""

from dataclasses import asdict
from pathlib import Path

import torch

from pipeline.runtime.devices import channels_last
from pipeline.runtime.errors import InputError, choose
from pipeline.runtime.files import fingerprint, sha256
from pipeline.runtime.progress import say
from pipeline.runtime.weights import read_safetensors, write_safetensors
from pipeline.teachers.faces import Pairs, load_pairs, sampling_weights
from pipeline.teachers.labels import CELEBAMASK19, label_space
from pipeline.teachers.loop import Lesson, class_weights, fit
from pipeline.teachers.networks import NETWORKS
from pipeline.teachers.options import Recipe
from pipeline.teachers.registry import INPUT_SIZE
from pipeline.teachers.scoring import count_pixels, mean, report

NUM_CLASSES = len(CELEBAMASK19)
SCORED = label_space("celebamask15")


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
    """Train as `loop.fit` does, write `weights` with its facts, and return the held-out scores."""
    network, origin = _first_network(recipe, start, device)
    pairs = load_pairs(folder, INPUT_SIZE, NUM_CLASSES)
    training, validation, test = split(pairs, recipe)
    say(f"{len(training.images)} training pairs, data {pairs.digest}, device {device}")

    draw = sampling_weights(training.masks, NUM_CLASSES)
    lesson = Lesson(
        training,
        (draw, draw),
        class_weights(training.masks, NUM_CLASSES).to(device),
        lambda average: mean(count_pixels(type(network), average, SCORED, validation, device)),
        fingerprint(asdict(recipe) | {"data": pairs.digest} | origin),
    )
    average = fit(network, lesson, recipe, state, evaluate_every, save_every)
    scores = _held_out(type(network), average, validation, test, device)
    facts = asdict(recipe) | {"data": pairs.digest, "scores": scores} | origin
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


def _held_out(
    network_class: type, state: dict, validation: Pairs, test: Pairs, device: torch.device
) -> dict[str, dict]:
    """Scores of both parts, and of the test part shrunk to 64 px."""
    parts = {"validation": (validation, None), "test": (test, None), "test_64px": (test, 64)}
    return {
        name: report(count_pixels(network_class, state, SCORED, part, device, through), SCORED)
        for name, (part, through) in parts.items()
    }
