"""Tables, findings and pictures of measure_geometry: centers, cosines, taps."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.data.arrays import Group
from pipeline.reporting.curves import Line, Panel, cosine_figure
from pipeline.reporting.figures import Column, grid_figure
from pipeline.reporting.palette import colorize
from pipeline.reporting.tables import PROTOCOLS, Metrics, Row

GEOMETRY = "geometry"
KINDS = {"raw": "raw features", "scaled": "features over their root mean square"}
SHOWN = {"lse": "LSE", "centers_raw": "centers", "centers_scaled": "centers, scaled"}
ACROSS = 6  # pictures in a line of the strip of taps

INTERVALS = """In parentheses: 95 % bootstrap interval over images. A dash: does not apply."""
TEST = f"""mIoU in % on test samples that no fit has seen, against the teacher's masks;
`miou_per_image` is eq (4) of the paper, `miou_dataset` one confusion matrix over all pixels; both
leave class 0 out. {INTERVALS}"""

CLAIMS = f"""What Xu & Zheng (CVPR 2021) say of their figures 4, 9 and 10, measured on raw features,
as they do. {INTERVALS}"""

CENTERS = f"""{TEST} Class centers: mean unit hypercolumn of each class's training pixels; a pixel
belongs to the center with the largest cosine. Nothing is trained. "% of LSE": on the same images,
resampled together. "own similarity is the largest": share of classes whose pixels are, by mean
cosine (algorithm 1), most similar to pixels of their own class; "across images" leaves out pairs of
pixels of one image."""

CLASSES = """Cosines, by class. "own": mean over pairs of pixels of the class (algorithm 1, raw
features); "nearest other": the class that is the most similar otherwise. "weights": cosine of the
LSE's weights with the class center, both without their mean over classes (which changes no mask)
and on features over their root mean square; "pattern": the same of second moments times weights,
which is what the features do where the LSE sees the class (Haufe et al., NeuroImage 2014): a
regression's weights need not point at the centers. "pool": pixels that fair sampling found."""

TAPS = f"""{TEST} "alone": eq (1) on this tap, a convex problem of its own; "in eq (8)": the tap's
part of the LSE whose loss adds that of each tap alone, which is what the paper's figure 10 shows.
MB: a sample's maps at float16. Validation: mIoU on validation pixels, which chose."""

NESTED = f"""{TEST} Each row adds the tap that scores best on validation pixels; "all" reads every
tap. All are fitted on the same pixels, fewer than the LSE of table 1. "minus all": paired
difference, points; one whose interval contains 0 tells none."""

DETECTORS = """The single channel that detects each class best: on where it exceeds a level. As in
GAN Dissection (Bau et al., ICLR 2019), the level tells most of the class: of a few, it has the
highest information quality ratio (mutual information / joint entropy of on and class). Then the
channel with the best IoU is taken; both are chosen on training pixels. IoU in % on validation
pixels, weighted to stand for all pixels; the LSE's and the centers' are of the test samples
(`miou_dataset`)."""


def all_tables(metrics: Metrics) -> list[tuple[str, str, str, pd.DataFrame]]:
    """(file name, title, note, table) of everything that measure_geometry measured."""
    return [
        ("geometry_claims", "Geometry: the paper's claims", CLAIMS, claims_table(metrics)),
        ("geometry_centers", "Class centers as a segmenter", CENTERS, centers_table(metrics)),
        ("geometry_classes", "Geometry of the classes", CLASSES, class_table(metrics)),
        ("geometry_taps", "What each tap knows", TAPS, taps_table(metrics)),
        ("geometry_nested", "Which few taps suffice", NESTED, nested_table(metrics)),
        ("geometry_detectors", "Single channels as detectors", DETECTORS, detectors_table(metrics)),
    ]


def claims_table(metrics: Metrics) -> pd.DataFrame:
    """A row a study and claim: what was measured, its interval, and whether it held."""
    rows = []
    for study, found in _studies(metrics):
        for claim, measured, unit, rule, value in _claims(found):
            row: Row = {"study": study, "claim": claim, "measured": measured, "unit": unit}
            row |= _interval("value", value)
            rows.append(row | {"held": "yes" if value["held"] else "no", "held if": rule})
    return pd.DataFrame(rows)


def _claims(found: Mapping) -> list[tuple[str, str, str, str, Mapping]]:
    segment, own, middle = (
        found["claims"][name]
        for name in ("centers_segment", "own_is_maximum", "middle_taps_richest")
    )
    return [
        (
            "class centers segment (fig 4)",
            "mIoU of the nearest center, relative to the LSE's",
            "%",
            f"the interval is above {segment['enough']:g}",
            segment,
        ),
        (
            "pixels of each class are most similar to those of the same class (fig 9)",
            "classes of which this is true",
            "%",
            "100",
            own,
        ),
        (
            "middle taps are richest (fig 10)",
            f"mIoU of {middle['tap']} minus {middle['end']}, the better of the first and last tap",
            "points",
            "the tap best on validation is neither, and the interval is above 0",
            middle,
        ),
    ]


def findings(files: Mapping[str, dict]) -> list[str]:
    """A sentence per claim of the paper."""
    if not (found := files.get(GEOMETRY)):
        return []
    return [
        f"the paper claims that {claim}. Here this {_verdict(value)}: {measured}, "
        f"{value['mean']:.1f} {unit} ({value['low']:.1f} to {value['high']:.1f})."
        for claim, measured, unit, _, value in _claims(found)
    ]


def _verdict(claim: Mapping) -> str:
    return "holds" if claim["held"] else "does not hold"


def _studies(metrics: Metrics) -> list[tuple[str, Mapping]]:
    return [(study, files[GEOMETRY]) for study, files in metrics.items() if GEOMETRY in files]


def _interval(column: str, value: Mapping) -> dict[str, float]:
    return {column: value["mean"], f"{column} low": value["low"], f"{column} high": value["high"]}


def _protocols(value: Mapping, suffix: str = "") -> Row:
    row: Row = {}
    for name in PROTOCOLS:
        row |= _interval(f"{name}{suffix}", value[name])
    return row


def centers_table(metrics: Metrics) -> pd.DataFrame:
    """The nearest center beside the LSE, and how often a class is most similar to itself."""
    rows = []
    for study, found in _studies(metrics):
        rows.append({"study": study, "masks from": "LSE"} | _protocols(found["lse"]))
        for kind, title in KINDS.items():
            value, similar = found["centers"][kind], found["similarity"][kind]
            row: Row = {"study": study, "masks from": f"centers, {title}"} | _protocols(value)
            row |= _protocols(value["of_lse"], ", % of LSE")
            row |= _interval("own similarity is the largest, %", similar["own_is_maximum"])
            across = similar["own_is_maximum_across_images"]
            rows.append(row | _interval("... across images, %", across))
    return pd.DataFrame(rows)


def class_table(metrics: Metrics) -> pd.DataFrame:
    """By class: own and nearest similarity, and how the LSE's weights lie to the centers."""
    rows = []
    for study, found in _studies(metrics):
        similar = found["similarity"]
        matrix = np.array(similar["raw"]["cosines"], float)
        for k, name in enumerate(similar["classes"]):
            row = {"study": study, "class": name, "pool": similar["pools"][name]}
            row["own"] = matrix[k, k]
            others = np.where(np.arange(len(matrix)) == k, np.nan, matrix[k])
            if not np.isnan(others).all():
                nearest = int(np.nanargmax(others))
                row["nearest other"] = f"{similar['classes'][nearest]} {others[nearest]:.2f}"
            for kind, title in (("scaled", "weights"), ("pattern", "pattern")):
                value = found["alignment"][kind][name]
                row[f"{title}, own"] = value["own"]
                row[f"{title}, nearest other"] = f"{value['nearest_other']} {value['other']:.2f}"
            rows.append(row)
    return pd.DataFrame(rows)


def taps_table(metrics: Metrics) -> pd.DataFrame:
    """A row a tap, and one a resolution that has several."""
    rows = []
    for study, found in _studies(metrics):
        for tap in found["taps"]:
            row = {"study": study, "tap": tap["taps"][0]} | _size(tap)
            row |= _protocols(tap["alone"], ", alone")
            rows.append(row | _interval("miou_per_image, in eq (8)", tap["layered"][PROTOCOLS[0]]))
        for group in found["resolutions"]:
            if len(group["taps"]) > 1:
                row = {"study": study, "tap": f"both of {group['resolution']} px"} | _size(group)
                if len(group["taps"]) > 2:
                    row["tap"] = f"all {len(group['taps'])} of {group['resolution']} px"
                rows.append(row | _protocols(group, ", alone"))
        row = {"study": study, "tap": "all, sum in eq (8)"} | _size(found["layered"])
        layered = found["layered"][PROTOCOLS[0]]
        rows.append(row | _interval("miou_per_image, in eq (8)", layered))
    return pd.DataFrame(rows)


def _size(value: Mapping) -> dict[str, float]:
    row = {"channels": value["channels"], "MB": value["mb"]}
    return row | {"validation": value["validation_pixels_miou"]}


def nested_table(metrics: Metrics) -> pd.DataFrame:
    """A row a size of the greedily chosen set, and all taps."""
    rows = []
    for study, found in _studies(metrics):
        before: set[str] = set()
        for chosen in found["nested"]:
            if len(chosen["taps"]) == len(found["all"]["taps"]):
                break
            (added,) = set(chosen["taps"]) - before
            before = set(chosen["taps"])
            row = {"study": study, "taps": len(before), "added": added}
            row |= _size(chosen) | _protocols(chosen)
            gap = chosen["minus_all"][PROTOCOLS[1]]
            rows.append(row | _interval(f"{PROTOCOLS[1]} minus all", gap))
        row = {"study": study, "taps": len(found["all"]["taps"]), "added": "all"}
        rows.append(row | _size(found["all"]) | _protocols(found["all"]))
    return pd.DataFrame(rows)


def detectors_table(metrics: Metrics) -> pd.DataFrame:
    """The best single channel of each class beside the centers and the LSE."""
    rows = []
    for study, found in _studies(metrics):
        for name in found["similarity"]["classes"]:
            if name in found["detectors"]:
                best = found["detectors"][name]
                row = {"study": study, "class": name, "tap": best["tap"]}
                row |= {"channel": best["channel"], "on, % of pixels": 100 * best["on"]}
                row["IoU of the channel"] = best["iou"]
                for title, scores in (("centers", found["centers"]["raw"]), ("LSE", found["lse"])):
                    row[f"IoU of the {title}"] = scores["miou_dataset"]["per_class"][name]
                rows.append(row)
    return pd.DataFrame(rows)


def panels(files: Mapping[str, dict]) -> list[Panel]:
    """mIoU of each tap by its resolution (fig 10), and of a few taps by the bytes they take."""
    found = files.get(GEOMETRY)
    if not found:
        return []
    name, y = PROTOCOLS[0], "mIoU per image, %"
    groups = found["resolutions"]
    ticks = [group["resolution"] for group in groups]
    lines = {}
    if any(len(group["taps"]) > 1 for group in groups):
        lines["all taps of a resolution, alone"] = _line(ticks, [group[name] for group in groups])
    for kind, title in (("alone", "best tap of a resolution, alone"), ("layered", "... in eq (8)")):
        lines[title] = _line(ticks, [_best(found["taps"], kind, px, name) for px in ticks])
    whole = found["all"][name]["mean"]
    lines["all taps"] = Line([ticks[0], ticks[-1]], [whole, whole], dashed=True)
    by_tap = Panel(
        "What each tap knows", "resolution of the tap, px", y, lines, log_x=True, ticks=ticks
    )
    return [by_tap, _size_panel(found)]


def _size_panel(found: Mapping) -> Panel:
    name = PROTOCOLS[1]  # what the selection on validation pixels estimates
    best: dict[float, Mapping] = {}  # tap of each size
    for tap in sorted(found["taps"], key=lambda tap: tap["validation_pixels_miou"]):
        best[tap["mb"]] = tap["alone"][name]
    chosen = [*found["nested"], found["all"]]
    lines = {
        "taps chosen one by one; all taps": _line(
            [value["mb"] for value in chosen], [value[name] for value in chosen]
        ),
        "best single tap of a size": _line(sorted(best), [best[mb] for mb in sorted(best)]),
    }
    x, y = "MB a sample at float16", "mIoU, dataset, %"
    low, high = min(best), found["all"]["mb"]
    round_numbers = [m * 10.0**k for k in range(-3, 6) for m in (1, 2, 5)]
    ticks = [number for number in round_numbers if low <= number <= high]
    return Panel("Which few taps suffice", x, y, lines, log_x=True, ticks=ticks or None)


def _best(taps: Sequence[Mapping], kind: str, resolution: int, name: str) -> Mapping:
    """Scores of the tap of a resolution that is best on validation pixels."""
    own = [tap for tap in taps if tap["resolution"] == resolution]
    return max(own, key=lambda tap: tap["validation_pixels_miou"])[kind][name]


def _line(x: Sequence[float], values: Sequence[Mapping]) -> Line:
    return Line(list(x), [value["mean"] for value in values])


def draw_cosines(files: Mapping[str, dict], path: Path) -> None:
    """The class x class heat map of mean cosines (fig 9)."""
    found = files[GEOMETRY]["similarity"]
    cosine_figure(path, np.array(found["raw"]["cosines"], float), found["classes"])


def draw_masks(group: Path, images: Path, masks: Path, path: Path) -> None:
    """Figure 4: the image, and masks of the teacher, the LSE and the class centers."""
    drawn = Group(group)
    rows, classes = drawn.read("test", "rows"), drawn.attributes["classes"]
    columns = [Column(*pair) for pair in _given(images, masks, rows, classes)]
    for name, title in SHOWN.items():
        columns.append(Column(title, colorize(drawn.read(name, "masks"), classes)))
    grid_figure(path, columns, [f"test {row}" for row in rows], classes)


def _given(
    images: Path, masks: Path, rows: np.ndarray, classes: list[str]
) -> list[tuple[str, np.ndarray]]:
    """Titles and pictures [sample, y, x, 3] of the image and the teacher's mask."""
    return [
        ("image", Group(images).read("test", "images")[rows].transpose(0, 2, 3, 1)),
        ("teacher", colorize(Group(masks).read("test", "masks")[rows], classes)),
    ]


def draw_taps(
    group: Path, images: Path, masks: Path, files: Mapping[str, dict], path: Path, samples: int
) -> None:
    """Figure 10: the image, masks of teacher and LSEs, and of eq (8)'s last tap a resolution."""
    drawn, taps = Group(group), files[GEOMETRY]["taps"]
    rows, classes = drawn.read("test", "rows")[:samples], drawn.attributes["classes"]
    pictures = _given(images, masks, rows, classes)
    last = {tap["resolution"]: index for index, tap in enumerate(taps)}
    shown = [("LSE, eq (1)", "lse"), ("LSE, eq (8)", "layered")]
    for title, name in shown + [(taps[i]["taps"][0], f"layered_{i}") for i in last.values()]:
        pictures.append((title, colorize(drawn.read(name, "masks")[: len(rows)], classes)))
    lines = math.ceil(len(pictures) / ACROSS)
    across = math.ceil(len(pictures) / lines)
    blank = np.full_like(pictures[0][1], 255)
    pictures += [("", blank)] * (lines * across - len(pictures))
    columns = []
    for i in range(across):
        titles, parts = zip(*pictures[i::across], strict=True)  # one a line
        by_sample = np.stack(parts, 1)
        columns.append(Column("", by_sample.reshape(-1, *blank.shape[1:]), titles * len(rows)))
    titles = [f"test {row}" if line == 0 else "" for row in rows for line in range(lines)]
    grid_figure(path, columns, titles, classes)
