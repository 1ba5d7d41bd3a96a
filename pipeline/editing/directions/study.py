"""Closed-form directions and their effects (SeFa, sec. 4), with masks in place of people.

The paper asks classifiers and people what a direction does; here an LSE's masks and the image's
colors tell, and every number stands beside that of random directions or of a random basis.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pipeline.data.arrays import Group, write_group
from pipeline.data.features import Source
from pipeline.editing.directions.boundaries import Boundary, boundaries_report, draw_boundaries
from pipeline.editing.directions.mask_changes import mean_seen, overall_selectivity, z_scores
from pipeline.editing.directions.method import LayerRange, layer_range
from pipeline.editing.directions.options import Plan, View
from pipeline.editing.directions.pictures import traversals
from pipeline.editing.directions.plan import BLOCKS, Known, candidates, factor
from pipeline.editing.directions.probes import Prober, Setup, trait_names, traits
from pipeline.editing.directions.report import Changes, mean_change, range_report, rounded
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import sha256
from pipeline.runtime.weights import write_safetensors

RIDGE = 0.1  # of the boundaries
TURNS = 3  # corrections of a step towards an image change


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
    few = prober.setup.view.color_samples
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
            "image_change": mean_change(at["image_change"]),
            "mask_change": mean_change(at["mask_change"]),
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
    theirs = setup.source.ws("test", 0, len(shown))[:, 0].double().cpu().numpy()
    held_out = theirs, traits(shown, setup.classes)
    rows = boundaries_report(boundaries, candidates(known, plan), w, held_out, names, RIDGE)
    facts = {"drawn": plan.boundary_samples, "share": plan.boundary_share}
    return boundaries, facts | {"traits": rows}


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
