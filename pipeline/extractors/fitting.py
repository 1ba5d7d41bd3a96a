"""Fit extractors: an LSE to sampled hypercolumns, any of them to cached maps.

Whatever a fit has to choose (L2, an iteration, a step) is chosen on the validation split.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pipeline.data.arrays import Group
from pipeline.data.features import decode
from pipeline.data.stores import Store
from pipeline.extractors import problems, solvers
from pipeline.extractors.networks import LSE, Extractor, build
from pipeline.extractors.options import LinearFit, Training
from pipeline.extractors.recipe import CachedSamples, fit_adam
from pipeline.extractors.registry import variant
from pipeline.extractors.training import Schedule, rate_of, train
from pipeline.generators.taps import Tap, select
from pipeline.runtime.errors import InputError, choose
from pipeline.runtime.pieces import Kind
from pipeline.runtime.progress import say

MOMENTS = Kind("second_moments", __name__)
MOMENTS_SEED = 0  # of the rows that they are summed over
ROWS = 64  # masks in memory at a time
SETTLED = 5  # iterations before validation may choose one
HALVED = 8  # iterations after which the better half of the L2 values goes on
SOLVERS = ("lbfgs", "adam")
RELIABLE = 100  # samples from which on their covariance is worth preconditioning with


@dataclass(frozen=True)
class Columns:
    """Hypercolumns [M, C], their classes [M] and weights [M]."""

    x: Tensor
    y: Tensor
    weights: Tensor


def read_columns(
    store: Store,  # of kind pixels
    split: str,
    channels: np.ndarray,  # which of the stored channels
    pixel_budget: int,  # pixels in all; each sample gives its share, evenly spread
    device: str,
    masks: str | None = None,  # zarr group of other masks of the same samples; None: as drawn
) -> Columns:
    """Read at most `pixel_budget` hypercolumns of a split; memory does not grow with samples.

    The weights depend on where pixels were drawn, not on their classes: they hold for any masks.
    """
    samples, stored = store.plan.splits[split], store.plan.facts["pixels_per_sample"]
    if samples == 0:
        raise InputError(f"no samples in {split}", "at least one", f"raise the size of {split}")
    share = max(1, min(stored, pixel_budget // samples))
    keep = np.linspace(0, stored, share, endpoint=False).astype(int)
    labels = None if masks is None else _labels(masks, store, split)
    whole = len(channels) == store.plan.facts["channels"]
    pick = slice(None) if whole else torch.from_numpy(channels)
    x = torch.empty(samples * share, len(channels), dtype=problems.STORED, device=device)
    classes, weights = [], []
    names = [array.name for array in store.plan.arrays]
    for row in range(samples):
        sample = {name: store.view(split, name, row)[None] for name in names}
        sample["columns"] = sample["columns"][:, keep]
        values = decode(sample, "columns")[0][:, pick]
        x[row * share : (row + 1) * share] = values.to(device)
        if labels is not None:
            if row % ROWS == 0:
                block = labels.read(split, "masks", slice(row, row + ROWS))
            sample["classes"] = block[row % ROWS].reshape(1, -1)[:, sample["places"][0]]
        classes.append(sample["classes"][0, keep])
        weights.append(sample["weights"][0, keep])
    return Columns(
        x,
        torch.from_numpy(np.concatenate(classes)).long().to(device),
        torch.from_numpy(np.concatenate(weights)).to(device),
    )


def _labels(masks: str, store: Store, split: str) -> Group:
    """The masks, if they can be those of the store's samples."""
    group, samples = Group(masks), store.plan.splits[split]
    found = group.splits.get(split, 0)
    if found != samples:
        raise InputError(
            f"{found} masks in {split} of {masks}",
            f"{samples}, as many as the pixel store has samples",
            "name the masks and pixels of one study",
        )
    return group


@dataclass(frozen=True)
class Choice:
    """A linear classifier, and what the validation pixels chose it by."""

    matrix: Tensor  # [C, K]
    bias: Tensor | None  # [K]
    l2: float
    iteration: int
    miou: float
    curve: list[dict]  # per iteration: the mIoU in %, by L2
    objective: list[list[float]]  # per iteration, of the L2 values that were left


def choose_fit(
    data: problems.Problem,
    held: Columns,
    l2: Sequence[float],  # candidates
    iterations: int,
    precondition: bool,
    second_moments: Tensor | None = None,  # to precondition with; None: of the data
) -> Choice:
    """Solve for all L2 values at once; the held-out pixels choose among values and iterations.

    The rule: from the fifth iteration on, the highest mIoU over the classes but 0, which the
    weights make an estimate of `miou_dataset` there. After every eighth iteration the better half
    of the values goes on (successive halving): a value that would have won late may be let go.
    """
    left = list(l2)
    curve: list[dict] = []
    best: list[Choice] = []  # of all iterations so far: one, or none

    def consider(iteration: int, solution: solvers.Solution) -> list[int] | None:
        if iteration < min(SETTLED, iterations):
            return None
        scores = validation_miou(held, solution, data.num_classes)
        found = {f"{value:g}": round(100 * s, 3) for value, s in zip(left, scores, strict=True)}
        curve.append({"iteration": iteration, "miou": found})
        i = int(np.argmax(scores))
        if not best or scores[i] > best[0].miou:
            bias = None if solution.bias is None else solution.bias[i].clone()
            matrix = solution.matrix[i].clone()
            best[:] = [Choice(matrix, bias, left[i], iteration, scores[i], curve, [])]
        if iteration % HALVED or len(left) == 1:
            return None
        kept = sorted(np.argsort(scores)[len(left) // 2 :].tolist())
        left[:] = [left[i] for i in kept]
        return kept

    solution = solvers.lbfgs(
        data,
        list(l2),
        iterations,
        precondition,
        on_iteration=consider,
        second_moments=second_moments,
    )
    return replace(best[0], objective=solution.objective)


@dataclass(frozen=True)
class Stored:
    """What extractors of a study are fitted on."""

    pixels: Store
    maps: Store | None  # of the cached taps; None where `needs_maps` says no
    masks: str  # zarr group
    device: str
    study: str = ""  # whose own learning rates are taken


def needs_maps(names: Sequence[str], linear: LinearFit) -> bool:
    """Whether one of these fits reads whole maps; InputError for an unknown name or solver."""
    choose("solver", linear.solver, SOLVERS)
    nonlinear = [variant(name).nonlinear for name in names]
    return any(nonlinear) or linear.solver == "adam"


def fit(name: str, stored: Stored, linear: LinearFit, training: Training) -> tuple[Extractor, dict]:
    """An extractor by name, fitted as its kind is, and the facts of the fit."""
    masks, device, nonlinear = stored.masks, stored.device, variant(name).nonlinear
    if not nonlinear and linear.solver == "lbfgs":
        how = linear.l2, linear.iterations, linear.pixel_budget
        return fit_lse(stored.pixels, name, *how, device, masks)
    assert stored.maps is not None, "these fits read whole maps"
    if not nonlinear:
        return fit_cached(stored.maps, masks, stored.pixels, name, linear.epochs, device)
    schedule, width = schedule_of(name, training, stored.study), training.nse2_width
    return fit_nonlinear(stored.maps, masks, stored.pixels, name, width, schedule, device)


def fit_lse(
    store: Store,  # of kind pixels: splits train and validation
    name: str,  # of the extractor's variant
    l2: Sequence[float],  # candidate strengths, in units of features scaled to unit power
    iterations: int,
    pixel_budget: int,
    device: str,
    masks: str | None = None,  # zarr group of other masks than the pixels were drawn with
) -> tuple[LSE, dict]:
    """Fit on `train`, choose as `choose_fit` does on `validation`; the LSE and the facts."""
    facts, form = store.plan.facts, variant(name)
    bias = bool(form.settings.get("bias"))
    classes = facts["classes"] if masks is None else Group(masks).attributes["classes"]
    taps = [Tap(**tap) for tap in facts["taps"]]
    kept, channels = _kept(taps, facts["resolution"] // form.finest)
    read = read_columns(store, "train", channels, pixel_budget, device, masks)
    held = read_columns(store, "validation", channels, pixel_budget // 4, device, masks)
    data = problems.problem(read.x, read.y, read.weights, len(classes), bias)
    say(f"fitting {len(data.x)} pixels x {len(channels)} channels, {len(l2)} values of L2")

    precondition = store.plan.splits["train"] >= RELIABLE
    gram = _kept_moments(store, channels, data) if precondition else None
    choice = choose_fit(data, held, l2, iterations, precondition, gram)
    extractor = LSE(classes, kept, bias, facts["align_corners"])
    extractor.set_matrix(choice.matrix.cpu(), None if choice.bias is None else choice.bias.cpu())
    say(f"chose L2 {choice.l2} at iteration {choice.iteration}: {100 * choice.miou:.2f}")
    return extractor, {
        "solver": "lbfgs",
        "l2": choice.l2,
        "iteration": choice.iteration,
        "validation_pixels_miou": round(100 * choice.miou, 3),
        "validation_curve": choice.curve,
        "l2_candidates": list(l2),
        "objective": [[round(v, 5) for v in row] for row in choice.objective],
        "pixels": len(data.x),
        "parameters": sum(p.numel() for p in extractor.parameters()),
    }


def _kept_moments(store: Store, channels: np.ndarray, data: problems.Problem) -> Tensor:
    """Second moments [C, C] of the scaled columns; fits to other labels of these pixels share them.

    Their sum takes as long as ten iterations of a fit.
    """
    facts = {"store": store.plan.fingerprint, "channels": channels.tolist(), "rows": len(data.x)}
    found = MOMENTS.read(facts)
    if found is None:
        found = {"moments": problems.moments(data, MOMENTS_SEED).cpu().numpy()}
        MOMENTS.write(facts, found)
    return torch.from_numpy(found["moments"]).to(data.x.device)


def _kept(taps: Sequence[Tap], max_resolution: int) -> tuple[tuple[Tap, ...], np.ndarray]:
    """The taps up to a resolution, and their channels among the stacked ones."""
    kept = select(taps, max_resolution)
    ends = np.cumsum([tap.channels for tap in taps])
    ranges = [
        np.arange(end - tap.channels, end)
        for tap, end in zip(taps, ends, strict=True)
        if tap in kept
    ]
    return kept, np.concatenate(ranges)


def fit_cached(
    features: Store, masks: str, pixels: Store, name: str, epochs: float, device: str
) -> tuple[LSE, dict]:
    """The paper's recipe on the native taps of a feature store; only `lse` has this form."""
    if name != "lse":
        raise InputError(f"solver adam for {name}", "lse", "use solver lbfgs for the ablations")
    taps, align_corners = _cached_taps(features, pixels)
    samples = CachedSamples(features, masks, "train", taps, device)
    return fit_adam(samples, Group(masks).attributes["classes"], align_corners, epochs)


def fit_nonlinear(
    features: Store,
    masks: str,
    pixels: Store,
    name: str,  # of the extractor's variant; one of an LSE is trained the same way
    nse2_width: int,  # channels of NSE-2 at most; 0: as many as each tap has (the paper's)
    schedule: Schedule,
    device: str,
) -> tuple[Extractor, dict]:
    """Train an extractor on the cached taps; return it and the facts of the fit."""
    taps, align_corners = _cached_taps(features, pixels)
    train_on, held = (
        CachedSamples(features, masks, split, taps, device) for split in ("train", "validation")
    )
    torch.manual_seed(schedule.seed)
    classes = Group(masks).attributes["classes"]
    extractor = build(name, classes, taps, nse2_width, align_corners)
    facts = train(extractor, train_on, held, schedule)
    return extractor.eval().requires_grad_(False), facts | extractor.settings


def schedule_of(name: str, training: Training, study: str = "") -> Schedule:
    """The training schedule of an extractor, at its own learning rate in this study."""
    return Schedule(
        steps=training.steps,
        batch=training.batch,
        window=training.window,
        learning_rate=rate_of(name, training.learning_rates, study),
        looks=training.looks,
        patience=training.patience,
    )


def _cached_taps(features: Store, pixels: Store) -> tuple[list[Tap], bool]:
    """The taps of a feature store, and whether the study aligns corners."""
    facts, cached = pixels.plan.facts, {array.name for array in features.plan.arrays}
    taps = [Tap(**tap) for tap in facts["taps"] if tap["name"] in cached]
    say(f"training on the {len(taps)} cached taps of {len(facts['taps'])}")
    return taps, facts["align_corners"]


def validation_miou(held: Columns, solution: solvers.Solution, num_classes: int) -> list[float]:
    """Weighted mIoU over the classes but 0, per L2 value."""
    num = len(solution.matrix)
    flat = solution.matrix.permute(1, 0, 2).reshape(held.x.shape[1], num * num_classes)
    logits = problems.times(held.x, flat).view(-1, num, num_classes)
    if solution.bias is not None:
        logits = logits + solution.bias
    predicted = logits.argmax(2)
    scores = []
    for i in range(num):
        pairs = held.y * num_classes + predicted[:, i]
        confusion = torch.zeros(num_classes**2, device=held.x.device).index_add_(
            0, pairs, held.weights
        )
        confusion = confusion.view(num_classes, num_classes).cpu().double()
        both = confusion.diagonal()
        union = confusion.sum(0) + confusion.sum(1) - both
        iou = (both / union)[1:]
        scores.append(float(iou[~iou.isnan()].mean()))
    return scores
