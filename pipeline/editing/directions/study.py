"""Closed-form directions and their effects (SeFa, sec. 4), with masks in place of people.

The paper asks classifiers and people what a direction does; here an LSE's masks and the image's
colors tell, and every number stands beside that of random directions or of a random basis.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pipeline.data.arrays import Group, write_group
from pipeline.data.features import Source
from pipeline.editing.directions.mask_changes import (
    NAMELESS,
    mean_seen,
    overall_selectivity,
    z_scores,
)
from pipeline.editing.directions.method import (
    Factors,
    LayerRange,
    Spread,
    Vector,
    Vectors,
    factorize,
    layer_range,
    move,
    principal,
    random_directions,
    spread_of_w,
)
from pipeline.editing.directions.options import Plan, View
from pipeline.editing.directions.probes import Prober, Setup, render, trait_names, traits
from pipeline.editing.directions.report import (
    Boundary,
    Changes,
    boundaries_report,
    draw_boundaries,
    interval,
    range_report,
    rounded,
)
from pipeline.metrics.color import lab
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import sha256
from pipeline.runtime.progress import say
from pipeline.runtime.weights import write_safetensors

BLOCKS = {"boundaries": 5_000_000, "spread": 6_000_000}  # of seeds, after those of the splits
RIDGE = 0.1  # of the boundaries
TURNS = 3  # corrections of a step towards an image change


@dataclass(frozen=True)
class Known:
    """What needs no sample's image: the factors of each range and the spread of w."""

    ranges: dict[str, LayerRange]
    factors: dict[str, Factors]  # of each range
    spread: Spread
    pca: Factors
    random: Vectors


@dataclass(frozen=True)
class Study:
    """What was found, ready to be written."""

    report: dict
    tensors: dict[str, torch.Tensor]
    facts: dict
    pictures: dict[str, np.ndarray]
    rows: list[str]  # titles of the pictures' rows


def open_setup(source: Source, extractor: Path, view: View) -> Setup:
    """A setup whose extractor reads this generator's taps; InputError if it cannot."""
    setup = Setup(source, str(extractor), view)
    found = Group(source.latents).splits["test"]
    if not 1 <= view.color_samples <= view.samples <= found:
        raise InputError(
            f"samples {view.samples}, color_samples {view.color_samples}",
            f"1 <= color_samples <= samples <= {found}, as many as the test split has",
            "change them in params.yaml",
        )
    own, known = sha256(source.checkpoint)[:16], Group(source.latents).attributes.get("generator")
    taps = source.generator().taps
    if known not in (None, own) or any(tap not in taps for tap in setup.reader().taps):
        raise InputError(
            f"{source.checkpoint}, {source.latents} and {extractor} that do not fit",
            "a generator with its own latents and an extractor of its taps",
            "name files of one study",
        )
    return setup


def run_study(setup: Setup, plan: Plan, masks: Path, num_workers: int = 0) -> Study:
    """Factorize, measure, compare, and draw boundaries."""
    check_classes(setup, masks)
    psi = Group(setup.source.latents).attributes.get("truncation_psi", 1.0)
    prober, known = Prober(setup, num_workers), factor(setup, plan, psi)
    step = plan.step * known.spread.typical
    ranges, control = describe_ranges(prober, known, plan, step)
    names = {f"{name}/sefa": value.pop("names") for name, value in ranges.items()}
    report = {
        "settings": _settings(setup, plan, psi, step, known),
        "ranges": ranges,
        "equal_change": compare(prober, known, plan, next(iter(ranges)), step, control),
    }
    boundaries, report["boundaries"] = _boundaries(prober, known, plan, psi, masks)
    names["all/boundary"] = [one.trait for one in boundaries]
    pictures, rows = traversals(setup, known, plan, ranges)
    facts = {
        "generator": sha256(setup.source.checkpoint)[:16],
        "truncation_psi": psi,
        "rows": {name: list(one.rows) for name, one in _every(setup, known).items()},
        "names": names,
    }
    return Study(report, tensors(known, boundaries), facts, pictures, rows)


def describe_ranges(
    prober: Prober, known: Known, plan: Plan, step: float
) -> tuple[dict[str, dict], Changes]:
    """The report of every layer range, and what random directions change in the first one."""
    described, controls = {}, []
    for name, one in known.ranges.items():
        factors = known.factors[name]
        top = prober.changes(factors.vectors[: plan.top], one.rows, step, f"directions of {name}")
        control = prober.changes(known.random, one.rows, step, f"random directions in {name}")
        spread, classes = known.spread.along(factors.vectors), prober.setup.classes
        report = range_report(factors, spread, top, control, classes, plan.obvious, plan.shown)
        described[name] = {"layers": len(one.layers)} | report
        controls.append(control)
    return described, controls[0]


def check_classes(setup: Setup, masks: Path) -> None:
    """InputError if the masks are of other classes than the extractor's."""
    if (classes := tuple(Group(masks).attributes["classes"])) != setup.classes:
        raise InputError(
            f"{masks} of classes {', '.join(classes)}",
            f"those of {setup.extractor}: {', '.join(setup.classes)}",
            "name the masks that the extractor was fitted to",
        )


def factor(setup: Setup, plan: Plan, truncation_psi: float) -> Known:
    """Everything in closed form."""
    generator = setup.source.generator()
    ranges = {name: layer_range(generator, name) for name in plan.ranges}
    if plan.top > generator.w_dim:
        raise InputError(
            f"top {plan.top}", f"at most {generator.w_dim}, the dimensions of w", "lower top"
        )
    if plan.random < plan.compared + 2:
        raise InputError(
            f"random {plan.random}",
            f"at least {plan.compared + 2}, two more than are compared",
            "raise random, the control of every score",
        )
    say(f"mapping {plan.spread_samples} z for the covariance of w")
    first_seed = plan.seed * 10_000_000 + BLOCKS["spread"]
    spread = spread_of_w(generator, plan.spread_samples, truncation_psi, first_seed)
    weights = generator.style_weights
    factors = {name: factorize([weights[x] for x in one.layers]) for name, one in ranges.items()}
    drawn = random_directions(plan.random, generator.w_dim, plan.seed)
    return Known(ranges, factors, spread, principal(spread), drawn)


def _settings(setup: Setup, plan: Plan, psi: float, step: float, known: Known) -> dict:
    return {
        "samples": setup.view.samples,
        "color_samples": setup.view.color_samples,
        "random": len(known.random),
        "step": plan.step,
        "step_in_w": round(step, 4),
        "truncation_psi": psi,
        "spread_samples": plan.spread_samples,
        "obvious": plan.obvious,
        "equal_lab": plan.equal_lab,
        "largest_variance_share": round(
            float(known.pca.eigenvalues[0] / known.pca.eigenvalues.sum()), 4
        ),
    }


def compare(
    prober: Prober, known: Known, plan: Plan, name: str, step: float, control: Changes
) -> dict:
    """SeFa, PCA and random directions, each at the step of one and the same mean image change.

    Equal alphas would compare lengths: eigenvalues say that SeFa's directions change more.
    """
    num, rows = len(prober.setup.classes), known.ranges[name].rows
    samples, few = prober.setup.view.samples, prober.setup.view.color_samples
    view = replace(prober.setup.view, samples=few)
    quick = replace(prober, setup=replace(prober.setup, view=view))
    methods = {
        "sefa": known.factors[name].vectors,
        "pca": known.pca.vectors,
        "random": known.random,
    }
    others = mean_seen(control["effects"][plan.compared :], 1)
    found = {}
    for method, vectors in methods.items():
        chosen, amount = vectors[: plan.compared], step
        for _ in range(TURNS):
            change = quick.changes(chosen, rows, amount, f"calibrating {method}")["image_change"]
            amount *= float(np.clip(plan.equal_lab / max(change.mean(), 1e-6), 0.2, 5))
        at = prober.changes(chosen, rows, amount, f"{method} at equal image change")
        z = z_scores(mean_seen(at["effects"], 1), others)[:, :num]
        found[method] = {
            "step_in_w": round(amount, 4),
            "spread_of_w": round(float(known.spread.along(chosen).mean()), 4),
            "selectivity": rounded(overall_selectivity(z)),
            "image_change": interval(lambda r, v=at: float(v["image_change"][:, r].mean()), few),
            "mask_change": interval(lambda r, v=at: float(v["mask_change"][:, r].mean()), samples),
        }
    return {"range": name, "directions": plan.compared, "methods": found}


def _boundaries(
    prober: Prober, known: Known, plan: Plan, psi: float, masks: Path
) -> tuple[list[Boundary], dict]:
    """Boundaries from an LSE's masks of new samples, judged by the teacher's of the test split."""
    setup, names = prober.setup, trait_names(prober.setup.classes)
    first_seed = plan.seed * 10_000_000 + BLOCKS["boundaries"]
    found = prober.population(plan.boundary_samples, psi, first_seed)
    w = found["w"].astype(float)
    boundaries = draw_boundaries(w, found["statistics"], names, plan.boundary_share, RIDGE)
    shown = Group(masks).read("test", "masks")
    held_out = setup.source.ws("test", 0, len(shown))[:, 0].double().cpu().numpy()
    held_out = held_out, traits(shown, setup.classes)
    rows = boundaries_report(boundaries, candidates(known, plan), w, held_out, names, RIDGE)
    facts = {"drawn": plan.boundary_samples, "share": plan.boundary_share}
    return boundaries, facts | {"traits": rows}


def candidates(known: Known, plan: Plan) -> dict[str, Vectors]:
    """Directions that a boundary may be near to: all of a basis (the paper's table 1), the top."""
    sefa, pca = next(iter(known.factors.values())).vectors, known.pca.vectors
    few = dict.fromkeys(k for k in (10, plan.top) if k < len(sefa))
    found = {"sefa": sefa} | {f"sefa, first {k}": sefa[:k] for k in few}
    return found | {"pca": pca} | {f"pca, first {k}": pca[:k] for k in few}


@dataclass(frozen=True)
class Line:
    """One row of the figure."""

    title: str
    vector: Vector
    rows: tuple[int, ...]


def lines(known: Known, described: Mapping[str, dict]) -> list[Line]:
    """Rows of the figure: directions of the strongest named effect per sd of w, and a random one.

    The strongest of each range whose name is not shown yet; of a single range, the first three.
    """
    found, names = [], set()
    for name, value in described.items():
        ranked = sorted(value["directions"], key=_strength, reverse=True)
        new = [one for one in ranked if _effect(one) not in names]
        for one in (new or ranked)[: 1 if len(described) > 1 else 3]:
            title = f"layers {name}, no. {one['index']}\n{one['name']}"
            vector = known.factors[name].vectors[one["index"]]
            found.append(Line(title, vector, known.ranges[name].rows))
            names.add(_effect(one))
    rows = next(iter(known.ranges.values())).rows
    return [*found, Line("random direction", known.random[0], rows)]


def traversals(
    setup: Setup, known: Known, plan: Plan, described: Mapping[str, dict]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Images, masks and CIELAB distances {name: [row, alpha, ...]} of the first test sample.

    Alphas are in sd of w along each direction. Also the rows' titles.
    """
    ws, shown = setup.source.ws("test", 0, 1), lines(known, described)
    unedited = lab(render(setup, ws, images=True)[1])
    images, masks, distances = [], [], []
    for line in shown:
        amounts = np.array(plan.alphas) * known.spread.along(line.vector[None])[0]
        moved = move(ws.repeat(len(amounts), 1, 1), line.vector, line.rows, amounts)
        mask, image = render(setup, moved, images=True)
        images.append(image)
        masks.append(mask)
        distances.append(np.linalg.norm(lab(image) - unedited, axis=1).mean((1, 2)))
    arrays = {"images": images, "masks": masks, "lab": distances}
    titles = [line.title for line in shown]
    return {f"rows/{name}": np.stack(parts) for name, parts in arrays.items()}, titles


def _effect(one: Mapping) -> str:
    return one["name"].split(",")[0]


def _strength(one: Mapping) -> float:
    named = one["name"] != NAMELESS
    return abs(one["z_of_name"]["mean"]) * one["spread_of_w"] if named else 0.0


def _every(setup: Setup, known: Known) -> dict[str, LayerRange]:
    return {"all": layer_range(setup.source.generator(), "all")} | known.ranges


def tensors(known: Known, boundaries: Sequence[Boundary]) -> dict[str, torch.Tensor]:
    """{range/method: vectors [direction, w_dim]}, each with the sd of w along its directions."""
    vectors = {f"{name}/sefa": one.vectors for name, one in known.factors.items()}
    vectors |= {"all/pca": known.pca.vectors, "all/random": known.random}
    if boundaries:
        vectors["all/boundary"] = np.stack([one.normal for one in boundaries])
    found = {name: torch.from_numpy(v.astype(np.float32)) for name, v in vectors.items()}
    for name, v in vectors.items():
        found[f"{name}/sd"] = torch.from_numpy(known.spread.along(v).astype(np.float32))
    for name, one in {**known.factors, "pca": known.pca}.items():
        key = "all/pca" if name == "pca" else f"{name}/sefa"
        found[f"{key}/eigenvalues"] = torch.from_numpy(one.eigenvalues.copy())
    return found


def write_study(folder: Path, study: Study, classes: Sequence[str], plan: Plan) -> None:
    """Write directions.safetensors, for `traverse_direction`, and pictures.zarr.zip."""
    write_safetensors(folder / "directions.safetensors", study.tensors, study.facts)
    attributes = {"classes": list(classes), "alphas": list(plan.alphas), "titles": study.rows}
    write_group(folder / "pictures.zarr.zip", study.pictures, attributes)
