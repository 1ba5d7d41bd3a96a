"""Editing in Style (Collins et al., CVPR 2020): tables, curves (fig 7), edits (fig 3), clusters."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.data.arrays import Group
from pipeline.editing.style.registry import METHODS
from pipeline.metrics.color import squared_error
from pipeline.reporting.curves import Line, Panel, line_figure
from pipeline.reporting.figures import Column, grid_figure
from pipeline.reporting.palette import COLORS, colorize
from pipeline.reporting.tables import Metrics

STYLE = "style"  # the file of scores
KINDS = ("trained", "control")  # generators
DELTA_E = 30.0  # CIELAB distance at the light end of a map of change

MATCHED_NOTE = """Out-MSE (squared CIELAB distance of the pixels outside the part) where a method's
In-MSE (inside) is the same share of what the whole reference would change there; less is more
local. Mean over (target, reference) pairs, with the 95 % bootstrap interval over them (a sample is
the target of one pair and the reference of another); "% of global": ratio to moving all style
scales alike, geometric mean over pairs. "trained": the generator. "control": the same generator
with its weights drawn anew and the trained ws, in the same regions of the trained masks. An
untrained network already prefers one query to another, so what training has to do with it is the
last column: the trained ratio over the control's, below 100 where training localizes. A dash: no
pair comes so far. Features: the reference's maps blended in; Poisson: its gradients pasted into the
image, which changes nothing outside. Both are told the region, and styles are not."""

CATALOG_NOTE = """IoU in %, one confusion matrix over all pixels. Clusters: spherical k-means of one
layer's activations, of training samples; their names are the unions of clusters that have the best
IoU with the teacher's masks there (none below the limit: 0), so this is what k-means can do at most
with perfect naming. One cluster: the best single one on the test samples, chosen there. LSE: fitted
to masks, all taps, all test samples."""

LAYERS_NOTE = """Mean IoU of the named classes on validation samples, in %; the best layer and
number of clusters make the catalog."""


def all_tables(metrics: Metrics) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """(file name, title, note, table) of each table."""
    title = "Editing in Style: locality at matched In-MSE"
    yield "style", title, MATCHED_NOTE, matched_table(metrics)
    title = "Editing in Style: clusters named by masks"
    yield "style_catalog", title, CATALOG_NOTE, catalog_table(metrics)
    title = "Editing in Style: layer and clusters"
    yield "style_layers", title, LAYERS_NOTE, layers_table(metrics)


def _studies(metrics: Metrics) -> Iterator[tuple[str, dict]]:
    """Studies whose style was edited, and what was found."""
    for study, files in metrics.items():
        if "skipped" not in files.get(STYLE, {"skipped": ""}):
            yield study, files[STYLE]


def matched_table(metrics: Metrics) -> pd.DataFrame:
    """A row a study, part, generator and method; a sentence for a study that has no styles."""
    rows = []
    for study, files in metrics.items():
        if sentence := files.get(STYLE, {}).get("skipped"):
            rows.append({"study": study, "part": f"skipped: {sentence}"})
    for study, found in _studies(metrics):
        for part in found["edited"]:
            for kind in KINDS:
                parts = found["matched"][kind]
                for method in (m for m in METHODS if m in parts[part]):
                    row = {"study": study, "part": part, "generator": kind}
                    row |= {"method": METHODS[method].title} | _cells(parts[part][method])
                    against = found["against_control"].get(part, {}).get(method)
                    if kind == "trained" and against:
                        row |= _interval("% of the control's ratio", against, 100)
                    rows.append(row)
    return pd.DataFrame(rows)


def _cells(cell: Mapping) -> dict:
    row = {"pairs": cell["out_mse"]["pairs"]} | _interval("Out-MSE", cell["out_mse"], 1)
    return row | _interval("% of global", cell.get("ratio", {}), 100)


def _interval(column: str, found: Mapping, factor: float) -> dict:
    names = {"mean": column, "low": f"{column} low", "high": f"{column} high"}
    values = {name: found.get(end) for end, name in names.items()}
    return {name: np.nan if v is None else factor * v for name, v in values.items()}


def catalog_table(metrics: Metrics) -> pd.DataFrame:
    """A row a study and class, or part: IoU of the named clusters beside the LSE's."""
    rows = []
    for study, found in _studies(metrics):
        parts = [*found["edited"], *found["left_out"]]
        named = found["classes"] | {f"part: {n}": found["parts"][n] for n in parts}
        order = [c for c in COLORS if c in named] + [n for n in named if n not in COLORS]
        for name in order:
            one = named[name]
            row = {"study": study, "class": name, "clusters": len(one["clusters"])}
            for split in ("train", "validation", "test"):
                row[f"clusters, {split}"] = _percent(one[f"{split}_iou"])
            row["one cluster, test"] = _percent(one.get("test_iou_one_cluster"))
            row["LSE, test"] = one.get("lse")
            rows.append(row)
    return pd.DataFrame(rows)


def layers_table(metrics: Metrics) -> pd.DataFrame:
    """A row a study and candidate."""
    rows = []
    for study, found in _studies(metrics):
        for one in found["candidates"]:
            chosen = (one["layer"], one["clusters"]) == (found["layer"], found["clusters"])
            rows.append(
                {
                    "study": study,
                    "layer": one["layer"],
                    "clusters": one["clusters"],
                    "mean IoU": _percent(one["mean_iou"]),
                    "chosen": "yes" if chosen else "",
                }
            )
    return pd.DataFrame(rows)


def _percent(share: float | None) -> float:
    return np.nan if share is None else round(100 * share, 1)


# Figures


def curves(found: Mapping) -> list[Panel]:
    """Fig 7b, c: In-MSE against Out-MSE while the strength grows, a panel a part.

    Both as shares of the reference's own errors, so that generators compare; the control is dashed.
    """
    panels = []
    for part in found["edited"]:
        methods, control = (found["curves"][kind][part] for kind in KINDS)
        lines = {
            METHODS[m].title: _line(methods[m]) for m in METHODS if m in methods and m != "poisson"
        }
        for method in (m for m in METHODS if m in control):
            title = METHODS[method].title
            lines[f"{title}, control"] = _line(control[method], title)
        panels.append(
            Panel(part, "In-MSE / the reference's", "Out-MSE / the reference's", lines, log_y=True)
        )
    return panels


def _line(points: Sequence[Mapping], like: str | None = None) -> Line:
    ordered = sorted(points, key=lambda point: point["in_share"])
    x, y = ([point[name] for point in ordered] for name in ("in_share", "out_share"))
    return Line(x, y, dashed=like is not None, like=like)


def draw_study(folder: Path, metrics: Mapping[str, dict], figures: Path, samples: int) -> None:
    """The figures of a study, from what edit_style wrote; none for a family without styles."""
    if not (folder / "pictures.zarr.zip").exists():
        return
    group = Group(folder / "pictures.zarr.zip")
    edits_figure(figures / "style.png", group, samples)
    clusters_figure(figures / "style_clusters.png", group)
    heat_figure(figures / "style_heat.png", group)
    line_figure(figures / "style_curves.png", curves(metrics[STYLE]), one_legend=True)


def edits_figure(path: Path, group: Group, most: int) -> None:
    """Fig 3: target, reference, then each part's sequential edit and its change, a row a pair."""
    about, images = group.attributes, group.read("edits", "images")[:most]
    targets, references = (group.read("edits", n)[:most] for n in ("targets", "references"))
    strength = len(about["strengths"]) // 2  # the middle one
    columns = [Column("target", _last(targets)), Column("reference", _last(references))]
    for i, part in enumerate(about["parts"]):
        edited = images[:, i, strength]
        change = np.sqrt(squared_error(targets, edited))
        columns.append(Column(f"its {part}", _last(edited)))
        columns.append(Column("change", heat_colors(change / DELTA_E)))
    rows = [f"test {a}, {b}" for a, b in about["pairs"][:most]]
    note = f"sequential queries, epsilon {about['strengths'][strength]:g}; change: CIELAB distance"
    grid_figure(path, columns, rows, [], f"{note}, black 0 to white {DELTA_E:g}")


def clusters_figure(path: Path, group: Group) -> None:
    """Fig 2 and 9: clusters of every layer; a cluster's hue is its most frequent class."""
    about = group.attributes
    classes, layers, majority = about["classes"], about["layers"], about["majority"]
    images, masks = (group.read("clusters", name) for name in ("images", "masks"))
    every = list(range(len(classes)))
    columns = [
        Column("image", _last(images)),
        Column("teacher's mask", cluster_colors(every, classes)[masks]),
    ]
    for layer in layers:
        labels = group.read("clusters", layer)
        colors = cluster_colors(majority[layer], classes)
        columns.append(Column(f"{layer}: {len(colors)}", colors[labels]))
    used = sorted({i for ids in majority.values() for i in ids} | set(np.unique(masks).tolist()))
    rows = [f"test {i}" for i in range(len(images))]
    grid_figure(path, columns, rows, [classes[i] for i in used])


def heat_figure(path: Path, group: Group) -> None:
    """Fig 7a: mean error maps at matched In-MSE, a row a part; the trained generator, the control.

    White where no pair comes so far.
    """
    about = group.attributes
    maps = dict(zip(map(tuple, about["heat"]), group.read("heat", "maps"), strict=True))
    missing = np.full_like(next(iter(maps.values())), np.inf)
    columns = []
    for kind in KINDS:
        for method in (m for m in METHODS if any(key[::2] == (kind, m) for key in maps)):
            errors = np.stack([maps.get((kind, part, method), missing) for part in about["parts"]])
            title = METHODS[method].title.replace(", ", "\n").replace("features ", "features\n")
            mark = "\n(control)" if kind == "control" else ""
            columns.append(Column(title + mark, heat_colors(errors)))
    note = "squared CIELAB distance, black 0 to white: the mean inside the part, alike for all"
    grid_figure(path, columns, about["parts"], [], note)


def heat_colors(values: np.ndarray) -> np.ndarray:
    """Values [..., H, W] from 0 to 1 as RGB [..., H, W, 3], black to white."""
    from matplotlib import colormaps

    return (255 * colormaps["inferno"](np.clip(values, 0, 1))[..., :3]).round().astype(np.uint8)


def cluster_colors(majority: Sequence[int], classes: Sequence[str]) -> np.ndarray:
    """RGB [cluster, 3]: the color of the class, in as many lightnesses as it has clusters."""
    colors = colorize(np.array(majority), list(classes)).astype(float)
    for class_ in set(majority):
        members = np.flatnonzero(np.array(majority) == class_)
        for member, shift in zip(members, np.linspace(-0.35, 0.35, len(members)), strict=True):
            if len(members) > 1:
                end = 255.0 if shift > 0 else 0.0
                colors[member] += abs(shift) * (end - colors[member])
    return colors.round().astype(np.uint8)


def _last(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 2, 3, 1)
