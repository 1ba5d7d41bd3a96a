"""What a study of local transfers found, as JSON, arrays and pictures."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.data.arrays import Group, write_group
from pipeline.data.stores import open_store
from pipeline.editing.style.catalog import at_size, mean_iou, read_maps, write_catalog
from pipeline.editing.style.options import Plan
from pipeline.editing.style.plan import KINDS
from pipeline.editing.style.scores import curves, matched, matched_maps, summarize
from pipeline.editing.style.study import Study
from pipeline.editing.style.tasks import Inputs
from pipeline.runtime.files import sha256

SHOWN = 4  # samples of the figure of clusters


def skipped(family: str) -> dict:
    """The report of a family without styles."""
    return {"skipped": f"{family} has no style scales: there is nothing to transfer"}


def report(study: Study, plan: Plan, lse: Mapping) -> dict:
    """The catalog beside the LSE, curves, and methods at matched In-MSE beside the control.

    lse: scores of the full LSE, as evaluate_extractor writes them.
    """
    catalog = study.catalog
    scores = lse["against_teacher"]["miou_dataset"]["per_class"]
    names = [name for name in catalog.unions if name in scores]  # classes, not parts
    outs, courses = {}, {}
    for kind in KINDS:
        keys, pieces = plan.keys(kind, study.parts), study.pieces[kind]
        outs[kind] = matched(keys, study.parts, pieces, plan.matched_share)
        courses[kind] = curves(keys, study.parts, pieces)
    return {
        "layer": catalog.layer,
        "clusters": len(catalog.centroids),
        "normalization": catalog.normalization,
        "candidates": [
            {
                "layer": one.layer,
                "clusters": len(one.centroids),
                "mean_iou": round(mean_iou(one, names), 4),
            }
            for one in study.catalogs
        ],
        "classes": {name: _named(study, name) | {"lse": scores[name]} for name in names},
        "parts": {name: _named(study, name) for name in plan.classes},
        "edited": study.parts,
        "left_out": study.left_out,
        "pairs": [list(pair) for pair in study.pairs],
        "matched_share": plan.matched_share,
        "curves": courses,
    } | summarize(outs)


def _named(study: Study, name: str) -> dict:
    catalog = study.catalog
    found = {f"{split}_iou": iou[name] for split, iou in catalog.iou.items()}
    if name in catalog.single["test"]:
        found["test_iou_one_cluster"] = catalog.single["test"][name]
    return found | {"clusters": catalog.unions[name]}


def write_study(folder: Path, study: Study, plan: Plan, inputs: Inputs) -> None:
    """Write the catalog (plain arrays and JSON) and pictures.zarr.zip."""
    prefix = "clusters/"
    contributions = {
        name.removeprefix(prefix): m
        for name, m in study.contributions.items()
        if name.startswith(prefix)
    }
    facts = {"generator": sha256(inputs.source.checkpoint)[:16], "parts": dict(plan.classes)}
    write_catalog(folder, study.catalog, contributions, facts)
    arrays, attributes = edits(study, plan)
    for more in (heat(study, plan), membership(study, inputs)):
        arrays |= more[0]
        attributes |= more[1]
    write_group(folder / "pictures.zarr.zip", arrays, attributes)


Pictures = tuple[dict[str, np.ndarray], dict]  # arrays, and what names their axes


def edits(study: Study, plan: Plan) -> Pictures:
    """Targets, references, and the sequential edits of every part and strength."""
    pieces = study.pieces["trained"]
    ends = np.stack([piece["ends"] for piece in pieces])
    strengths = plan.strengths["sequential"]
    images = np.stack([piece["edits"] for piece in pieces])
    images = images.reshape(len(pieces), len(study.parts), len(strengths), *images.shape[2:])
    arrays = {"edits/targets": ends[:, 0], "edits/references": ends[:, 1], "edits/images": images}
    return arrays, {"parts": study.parts, "strengths": list(strengths), "pairs": study.pairs}


def heat(study: Study, plan: Plan) -> Pictures:
    """Mean error maps at matched In-MSE of every kind, part and method that comes that far."""
    found = {}
    for kind in KINDS:
        keys, pieces = plan.keys(kind, study.parts), study.pieces[kind]
        maps = matched_maps(keys, study.parts, pieces, plan.matched_share)
        for (part, method), values in maps.items():
            ends = [piece["reference"][study.parts.index(part)][0] for piece in pieces]
            found[kind, part, method] = values / (plan.matched_share * np.mean(ends))
    return {"heat/maps": np.stack(list(found.values()))}, {"heat": [list(key) for key in found]}


def membership(study: Study, inputs: Inputs) -> Pictures:
    """Clusters of test samples in every candidate layer, at its best number of clusters."""
    store, masks = open_store(inputs.features), Group(inputs.masks)
    classes = masks.attributes["classes"]
    best = {}
    for one in sorted(study.catalogs, key=lambda one: mean_iou(one, classes[1:])):
        best[one.layer] = one
    shown = masks.read("test", "masks", slice(SHOWN))
    arrays = {
        "clusters/images": Group(inputs.images).read("test", "images", slice(SHOWN)),
        "clusters/masks": shown,
    }
    layers = list(dict.fromkeys(one.layer for one in study.catalogs))
    for layer in layers:
        labels = best[layer].label(read_maps(store, layer, "test", SHOWN))
        arrays[f"clusters/{layer}"] = at_size(labels, shown.shape[-1])
    majority = {layer: best[layer].majority for layer in layers}
    return arrays, {"layers": layers, "majority": majority, "classes": classes}
