"""Directions found without labels (SeFa, CVPR 2021): their tables, strips and traversals."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.data.arrays import Group
from pipeline.reporting import paper
from pipeline.reporting.figures import Column, grid_figure
from pipeline.reporting.palette import colorize
from pipeline.reporting.tables import Metrics
from pipeline.runtime.files import atomic, write_arrays

DIRECTIONS = "directions"  # the file of scores
POSE = "face: nose right"
METHODS = {"sefa": "SeFa", "pca": "PCA of w", "random": "random"}

TOP_NOTE = """Directions by eigenvalue, no. 0 first. gap: to the next eigenvalue, relative; a small
one means that the direction is arbitrary within a plane. sd of w: along the direction. name: of all
areas, places and colors of classes, the one that changes most surely, in standard deviations (sd)
of random directions at the same layers and step, if it exceeds what the largest one of a random
direction does once in twenty times. Changes: 1 - mean IoU of the mask with the
unedited one, and mean CIELAB distance of the image. Selectivity: 1 for a direction that changes the
area of one class, 0 for all alike. In parentheses: 95 % bootstrap interval over samples, which are
few; none for a single sample."""

SHARES_NOTE = """Share, in %, of the measured directions whose mask or image changes obviously: so
many times (parameter `obvious`) as much as by random directions, on average and at the same step.
named: share with an effect beyond chance on the area, place or color of a class. Spearman: rank
correlation of eigenvalue and change, the premise that large eigenvalues mean large change, 0 by
chance, with its 95 % bootstrap interval over directions and samples; and of eigenvalue and sd of w
along the direction, negative if w varies least where the weights act most. The paper's table 3
counts by people's judgment instead."""

BOUNDARY_NOTE = """Cosine distance, 1 - |cos|, of the nearest direction to the normal of a linear
boundary between the samples that show least and most of a trait; its index; in parentheses its 95 %
bootstrap interval. chance: of a normal that points anywhere. shuffled: of boundaries between groups
drawn by chance, whose normals lie where w varies most, as all fitted ones do: the level to beat;
p: their share that is as near. a side: samples at either end. held out: Spearman of the position
along the normal with the trait in the teacher's masks of the test split."""

EQUAL_NOTE = """Each method's first directions at the one step where their mean image change is that
of the column, so that no method wins by a longer step: what is left is where the change goes."""

SCORES_NOTE = """Change of a class's area, in standard deviations of random directions at the same
layers and step; within a row, the largest tell what the direction does."""


def all_tables(metrics: Metrics) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """(file name, title, note, table) of each table."""
    yield "directions", "Directions in closed form", TOP_NOTE, top_table(metrics)
    title = "SeFa's table 3: obvious changes"
    yield "directions_shares", title, SHARES_NOTE, shares_table(metrics)
    title = "SeFa's table 1: nearest directions"
    yield "directions_boundaries", title, BOUNDARY_NOTE, boundary_table(metrics)
    title = "Methods at equal image change"
    yield "directions_equal", title, EQUAL_NOTE, equal_table(metrics)
    yield "directions_areas", "Mask re-scoring", SCORES_NOTE, area_table(metrics)


def _each_range(metrics: Metrics) -> Iterator[tuple[dict, dict, dict]]:
    """(the first columns of a row, a range's scores, the study's settings)."""
    for study, files in metrics.items():
        found = files.get(DIRECTIONS, {})
        for name in _in_order(found.get("ranges", {})):
            yield {"study": study, "layers": name}, found["ranges"][name], found["settings"]


def _in_order(ranges: Mapping) -> list[str]:
    """`all`, then by first layer; JSON sorts names as text."""
    return sorted(ranges, key=lambda n: -1 if n == "all" else int(n.split("-")[0]))


def _interval(column: str, value: Mapping[str, float | None], factor: float = 1) -> dict:
    """Three columns that `tables.fold` joins; NaN for None."""
    ends = {"": "mean", " low": "low", " high": "high"}
    return {
        f"{column}{end}": float("nan") if (found := value[key]) is None else factor * found
        for end, key in ends.items()
    }


def top_table(metrics: Metrics) -> pd.DataFrame:
    """A row a study, layer range and direction; one of random directions below them."""
    rows = []
    for start, value, _ in _each_range(metrics):
        for one in value["directions"]:
            row = start | {"no.": str(one["index"]), "name": one["name"]}
            row |= {"eigenvalue": one["eigenvalue"], "gap": one["gap"]}
            row["sd of w"] = one["spread_of_w"]
            row |= _interval("mask change, %", one["mask_change"], 100)
            row |= _interval("image change", one["image_change"])
            rows.append(row | {"selectivity": one["selectivity"]})
        limit = f"5 % exceed {value['largest_z_by_chance']:.1f} sd"
        row = start | {"no.": "random", "name": limit}
        row |= _interval("mask change, %", value["change"]["random"]["mask"], 100)
        row |= _interval("image change", value["change"]["random"]["image"])
        rows.append(row | {"selectivity": value["selectivity"]["random"]})
    return pd.DataFrame(rows)


def shares_table(metrics: Metrics) -> pd.DataFrame:
    """A row a study and layer range: shares of obvious changes, and the premise."""
    rows = []
    for start, value, settings in _each_range(metrics):
        row = start | {"directions": value["measured"], "random": settings["random"]}
        for who, name in (("sefa", "SeFa"), ("random", "random")):
            shares = value["obvious"][who]
            row |= {f"{what}, {name}": 100 * shares[what] for what in ("mask", "image", "either")}
        row["named"] = 100 * value["named"] / value["measured"]
        for what in ("mask", "image"):
            premise = value["premise"][what]
            row[f"Spearman, {what} change"] = (
                f"{premise['mean']:.2f} ({premise['low']:.2f} to {premise['high']:.2f})"
            )
        row["Spearman, sd of w"] = value["premise"]["spread_of_w"]
        rows.append(row)
    return pd.DataFrame(rows)


def boundary_table(metrics: Metrics) -> pd.DataFrame:
    """A row a study, trait and method, of all its directions and the first ones; then the paper's.

    JSON names a method `sefa`, or `sefa, first 10`.
    """
    rows = []
    for study, files in metrics.items():
        traits = files.get(DIRECTIONS, {}).get("boundaries", {}).get("traits", {})
        for trait, value in traits.items():
            for method in ("sefa", "pca"):
                row = {"study": study, "trait": trait, "directions": METHODS[method]}
                row["a side"] = value["samples"]
                row["held out"] = value["held_out_spearman"]["mean"]
                few = [name for name in value["methods"] if name.startswith(f"{method}, first ")]
                for name in (method, *sorted(few, key=lambda n: int(n.split()[-1]))):
                    of = f", {name.split(', ')[1]}" if name in few else ""
                    found = value["methods"][name]
                    row |= {f"distance{of}": _text(found), f"index{of}": str(found["index"])}
                    row |= {f"chance{of}": found["chance"], f"shuffled{of}": found["shuffled"]}
                    row[f"p{of}"] = found["p_shuffled"]
                rows.append(row)
    rows += [
        {"study": f"paper: {generator}", "trait": trait, "directions": METHODS[method.lower()]}
        | {"distance": f"{distance:.2f}", "index": str(index)}
        for (generator, method), traits in paper.SEFA_DISTANCES.items()
        for trait, (distance, index) in traits.items()
        if rows
    ]
    return pd.DataFrame(rows)


def _text(value: Mapping[str, float]) -> str:
    return f"{value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


def equal_table(metrics: Metrics) -> pd.DataFrame:
    """A row a study and method."""
    rows = []
    for study, files in metrics.items():
        found = files.get(DIRECTIONS, {}).get("equal_change", {"methods": {}})
        for method, name in METHODS.items():
            if not (value := found["methods"].get(method)):
                continue
            row = {"study": study, "method": name, "directions": found["directions"]}
            row |= {"step in w": value["step_in_w"], "sd of w": value["spread_of_w"]}
            row |= _interval("image change", value["image_change"])
            row |= _interval("mask change, %", value["mask_change"], 100)
            rows.append(row | {"selectivity": value["selectivity"]})
    return pd.DataFrame(rows)


def area_table(metrics: Metrics) -> pd.DataFrame:
    """The re-scoring matrix: z of every class's area, a row a direction."""
    rows = []
    for start, value, _ in _each_range(metrics):
        for one in value["directions"]:
            rows.append(start | {"no.": str(one["index"])} | one["z"]["area"])
    return pd.DataFrame(rows)


def draw_study(pictures: Path, figure: Path) -> None:
    """Traversals: a row a direction, a column an alpha, the mask under each image."""
    group = Group(pictures)
    images, masks = (group.read("rows", name) for name in ("images", "masks"))
    distances, classes = group.read("rows", "lab"), group.attributes["classes"]
    both = np.concatenate([images.transpose(0, 1, 3, 4, 2), colorize(masks, classes)], 2)
    columns = [
        Column(f"{alpha:+g} sd" if alpha else "as it is", both[:, i], _captions(distances[:, i]))
        for i, alpha in enumerate(group.attributes["alphas"])
    ]
    grid_figure(figure, columns, group.attributes["titles"], classes)


def _captions(distances: np.ndarray) -> list[str]:
    return [f"ΔE {distance:.0f}" if distance > 0 else "" for distance in distances]


def write_strip(
    folder: Path,
    ws: np.ndarray,  # [alpha, num_ws, w_dim]
    images: np.ndarray,  # [alpha, 3, R, R] uint8
    masks: np.ndarray | None,  # [alpha, size, size]
    classes: Sequence[str],
    alphas: Sequence[float],
    size: int,  # of a picture of the strip, px
) -> None:
    """Write strip.png, <i>.png at full resolution for each alpha, and latents.npz."""
    pictures = images.transpose(0, 2, 3, 1)
    small = [np.asarray(Image.fromarray(one).resize((size, size))) for one in pictures]
    parts = [np.concatenate(small, 1)]
    if masks is not None:
        parts.append(np.concatenate(list(colorize(masks, list(classes))), 1))
    named = {"strip": np.concatenate(parts)} | {str(i): one for i, one in enumerate(pictures)}
    for name, pixels in named.items():
        with atomic(folder / f"{name}.png") as partial:
            Image.fromarray(np.ascontiguousarray(pixels)).save(partial, "png")
    write_arrays(folder / "latents.npz", {"alphas": np.array(alphas), "ws": ws})


def findings(files: Mapping[str, dict]) -> list[str]:
    """Sentences: the premise, the obvious changes, boundaries; each beside its control."""
    found = files.get(DIRECTIONS)
    if not found:
        return []
    return [*_premises(found), *_shares(found), *_equal(found), *_nearest(found), *_pose(found)]


def _premises(found: Mapping) -> list[str]:
    words = []
    for name in _in_order(found["ranges"]):
        value = found["ranges"][name]["premise"]["image"]
        held = "held" if value["low"] > 0 else "not held"
        words.append(
            f"layers {name} {value['mean']:.2f} ({value['low']:.2f} to {value['high']:.2f}, {held})"
        )
    return [
        "SeFa takes directions of large eigenvalues, on the premise that these change the image "
        "most. Rank correlation (Spearman) of eigenvalue and change, 0 by chance: "
        f"{'; '.join(words)}."
    ]


def _shares(found: Mapping) -> list[str]:
    words = [
        f"layers {name} {100 * value['obvious']['sefa']['either']:.0f} % of {value['measured']} "
        f"directions (random ones: {100 * value['obvious']['random']['either']:.0f} %)"
        for name in _in_order(found["ranges"])
        if (value := found["ranges"][name])
    ]
    return [
        "share of SeFa's directions that change masks or images at least "
        f"{found['settings']['obvious']:g} times as much as the mean random direction of equal "
        f"step: {'; '.join(words)}."
    ]


def _nearest(found: Mapping) -> list[str]:
    """How often SeFa and PCA are nearer to a boundary than to those of shuffled groups."""
    traits = found["boundaries"]["traits"]
    if not traits:
        return []
    words = []
    for method in ("sefa", "pca"):
        rows = [value["methods"][method] for value in traits.values()]
        near = sum(row["p_shuffled"] <= 0.05 for row in rows)
        mean, shuffled, chance = (
            np.mean([row[key] for row in rows]) for key in ("mean", "shuffled", "chance")
        )
        words.append(
            f"{METHODS[method]} {mean:.2f} (boundaries of shuffled groups {shuffled:.2f}, a random "
            f"boundary {chance:.2f}; {near} are nearer than shuffled ones at p <= .05)"
        )
    return [
        "a boundary parts samples with much of a trait of their masks from those with little. "
        f"Mean cosine distance of {len(traits)} boundaries to the nearest direction: "
        f"{'; '.join(words)}."
    ]


def _equal(found: Mapping) -> list[str]:
    words = {}
    for method, scores in found["equal_change"]["methods"].items():
        value = scores["mask_change"]
        if value["low"] is not None:
            mean, low, high = (100 * value[key] for key in ("mean", "low", "high"))
            words[method] = f"{mean:.0f} % ({low:.0f} to {high:.0f})"
    if len(words) < len(METHODS):
        return []
    return [
        f"at steps that change the image equally ({found['settings']['equal_lab']:g} CIELAB), "
        f"SeFa's first directions change {words['sefa']} of the mask, those of a PCA of w "
        f"{words['pca']}, random ones {words['random']}."
    ]


def _pose(found: Mapping) -> list[str]:
    """The best known direction of the paper, beside its number."""
    value = found["boundaries"]["traits"].get(POSE)
    if not value:
        return []
    words = []
    for method in ("sefa", "pca"):
        row = value["methods"][method]
        near = f"{METHODS[method]} no. {row['index']} at {_text(row)}"
        words.append(f"{near} (shuffled groups {row['shuffled']:.2f})")
    published = {m: paper.SEFA_DISTANCES["StyleGAN W", m]["pose"][0] for m in ("SeFa", "PCA")}
    return [
        "the boundary between heads turned left and right (rank correlation with the turn on "
        f"held-out samples {value['held_out_spearman']['mean']:.2f}) has these cosine distances to "
        f"the nearest direction: {'; '.join(words)}. The SeFa paper's for StyleGAN W: SeFa "
        f"{published['SeFa']}, PCA {published['PCA']}."
    ]
