"""Tables and panels of the few-shot sweep: shots, strokes, and which samples to annotate."""

from collections.abc import Iterator, Mapping

import pandas as pd

from pipeline.reporting import paper
from pipeline.reporting.curves import Line, Panel
from pipeline.reporting.tables import PROTOCOLS, TWO_PROTOCOLS, Metrics, Table, in_order

SWEEP = "fewshot_sweep"
STRATEGIES = ("random", "diverse", "uncertain", "committee")  # in the order of tables and lines

TABLE_2 = f"""{TWO_PROTOCOLS} Mean over repeats on disjoint draws from the pool, standard deviation
(± sd) and largest deviation from the mean (what the paper prints as ±); "% of full": of the LSE
fitted on the whole training split. The paper's column: StyleGAN2-FFHQ, table 2."""

STROKES = f"""{TWO_PROTOCOLS} Strokes are simulated from the teacher's masks: segments inside each
class, pixels shared out by the square root of its area. Equal numbers of labeled pixels compare."""

SELECTION = f"""{TWO_PROTOCOLS} A repeat gives each strategy the same random half of the pool; no
strategy sees a mask before it has picked the sample. diverse: k-center on mean features; uncertain:
highest entropy of the extractor fitted so far; committee: largest Jensen-Shannon divergence among
three that each leave a third of the annotated samples out (mean of the top 10 % of pixels, after
DatasetGAN, Zhang et al., CVPR 2021). gain: paired difference to random over repeats, with its 95 %
t interval."""

CLASSES = """IoU per class in %, protocol of `miou_per_image`, mean over repeats with full masks. A
class that the drawn samples do not show cannot be learned from them."""


def all_tables(metrics: Metrics) -> Iterator[Table]:
    """Table 2, and what the sweep found beside it."""
    yield "table2", "Table 2: few-shot LSE", TABLE_2, shots_table(metrics)
    yield "fewshot_classes", "Few-shot per class", CLASSES, class_table(metrics)
    yield "fewshot_strokes", "Strokes", STROKES, strokes_table(metrics)
    title = "Which samples to annotate"
    yield "fewshot_selection", title, SELECTION, selection_table(metrics)


def shots_table(metrics: Metrics) -> pd.DataFrame:
    """Table 2: mean over repeats, both deviations, share of the full LSE, the paper's column."""
    rows = []
    for study, files in metrics.items():
        for shots, value in _by_number(files.get(SWEEP, {}).get("full", {})):
            row = {"study": study, "shots": shots, "repeats": value["repeats"]}
            for protocol in PROTOCOLS:
                row |= _with_deviations(value[protocol], protocol)
            theirs = paper.FEWSHOT if paper.same_classes(value["iou_per_image"]) else {}
            mean, share, deviation = theirs.get(shots, (None, None, None))
            row |= {"labeled pixels": value["labeled_pixels"]}
            row |= {"paper, FFHQ": mean, "paper max. dev.": deviation, "paper, % of full": share}
            rows.append(row)
    return pd.DataFrame(rows)


def _with_deviations(value: Mapping, protocol: str) -> dict[str, float]:
    return {
        protocol: value["mean"],
        f"{protocol} ± sd": value["standard_deviation"],
        f"{protocol} max. dev.": value["maximum_deviation"],
        f"{protocol}, % of full": value["of_full_lse"],
    }


def class_table(metrics: Metrics) -> pd.DataFrame:
    """IoU per class by shots beside the full LSE's: where a few shots fall short."""
    rows = []
    for study, files in metrics.items():
        shots = _by_number(files.get(SWEEP, {}).get("full", {}))
        if not shots:
            continue
        full = files["lse"]["against_teacher"][PROTOCOLS[0]]["per_class"]
        for name in in_order(shots[0][1]["iou_per_image"]):
            row: dict = {"study": study, "class": name}
            row |= {f"{num} shots": value["iou_per_image"][name] for num, value in shots}
            rows.append(row | {"full LSE": full[name]})
    return pd.DataFrame(rows)


def strokes_table(metrics: Metrics) -> pd.DataFrame:
    """mIoU by labeled stroke pixels and the samples they are spread over; full masks beside."""
    rows = []
    for study, files in metrics.items():
        sweep = files.get(SWEEP, {})
        found = [
            (value["labeled_pixels"], int(samples.split()[0]), "strokes", value)
            for samples, budgets in sweep.get("strokes", {}).items()
            for value in budgets.values()
        ]
        found += [
            (value["labeled_pixels"], shots, "full masks", value)
            for shots, value in _by_number(sweep.get("full", {}))
        ]
        for pixels, samples, annotation, value in sorted(found, key=lambda f: f[:2]):
            row = {"study": study, "labeled pixels": pixels, "samples": samples}
            row["annotation"] = annotation
            for protocol in PROTOCOLS:
                row |= _with_deviations(value[protocol], protocol)
            rows.append(row)
    return pd.DataFrame(rows)


def selection_table(metrics: Metrics) -> pd.DataFrame:
    """Strategies on the same halves of the pool, and the paired gain over random, 95 %."""
    rows = []
    for study, files in metrics.items():
        for strategy, by_shots in by_strategy(files).items():
            for shots, value in _by_number(by_shots):
                row = {"study": study, "selection": strategy, "shots": shots}
                for protocol in PROTOCOLS:
                    row[protocol] = value[protocol]["mean"]
                for protocol in PROTOCOLS:
                    gain = value.get("gain", {}).get(protocol)
                    if gain is not None and gain["plus_minus"] is not None:
                        column, reach = f"gain, {protocol}", gain["plus_minus"]
                        row[column] = gain["mean"]
                        row[f"{column} low"] = gain["mean"] - reach
                        row[f"{column} high"] = gain["mean"] + reach
                rows.append(row)
    rows.sort(key=lambda r: (r["study"], r["shots"]))
    return pd.DataFrame(rows)


def by_strategy(files: Mapping[str, dict]) -> dict[str, Mapping]:
    """Scores by shots of every strategy of a study's sweep; JSON sorts them by name."""
    found = files.get(SWEEP, {}).get("selection", {})
    return {name: found[name] for name in [*STRATEGIES, *found] if name in found}


def panels(files: Mapping[str, dict]) -> list[Panel]:
    """Share of the full LSE by shots beside the paper's, strokes by pixels, and selections."""
    sweep = files.get(SWEEP, {})
    ticks = [shots for shots, _ in _by_number(sweep.get("full", {}))]
    if not ticks:
        return []
    return [_shots_panel(sweep, ticks), _strokes_panel(sweep), _selection_panel(files, ticks)]


def _shots_panel(sweep: Mapping, ticks: list[int]) -> Panel:
    lines = {
        name: _line(sweep["full"], protocol, "of_full_lse")
        for name, protocol in (("per image", PROTOCOLS[0]), ("dataset", PROTOCOLS[1]))
    }
    shares = [share for _, share, _ in paper.FEWSHOT.values()]
    lines["the paper, StyleGAN2-FFHQ"] = Line(list(paper.FEWSHOT), shares, dashed=True)
    title, y = "Full masks", "mIoU, % of the full LSE's"
    return Panel(title, "annotated samples", y, lines, log_x=True, ticks=ticks)


def _strokes_panel(sweep: Mapping) -> Panel:
    lines = {}
    for samples, budgets in sorted(
        sweep.get("strokes", {}).items(), key=lambda s: int(s[0].split()[0])
    ):
        title = "1 sample" if samples == "1 samples" else samples
        lines[f"strokes on {title}"] = _line(budgets, PROTOCOLS[0], "mean", band=True)
    full = {str(value["labeled_pixels"]): value for value in sweep["full"].values()}
    lines["full masks"] = _line(full, PROTOCOLS[0], "mean", band=True)
    return Panel("Strokes", "labeled pixels in all", "mIoU per image, %", lines, log_x=True)


def _selection_panel(files: Mapping[str, dict], ticks: list[int]) -> Panel:
    lines = {
        name: _line(by_shots, PROTOCOLS[0], "mean") for name, by_shots in by_strategy(files).items()
    }
    title, y = "Which samples to annotate", "mIoU per image, %"
    return Panel(title, "annotated samples", y, lines, log_x=True, ticks=ticks)


def _line(by_number: Mapping[str, Mapping], protocol: str, key: str, band: bool = False) -> Line:
    pairs = _by_number(by_number)
    reach = [value[protocol]["standard_deviation"] for _, value in pairs] if band else None
    return Line([number for number, _ in pairs], [v[protocol][key] for _, v in pairs], reach)


def _by_number(found: Mapping[str, Mapping]) -> list[tuple[int, Mapping]]:
    return sorted((int(number), value) for number, value in found.items())
