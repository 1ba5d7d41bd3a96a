"""Semantic-Conditional Sampling (Xu & Zheng, CVPR 2021): their table 3 and figure 6."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pandas as pd

from pipeline.data.arrays import Group
from pipeline.metrics.agreement import agreement_eq7, count
from pipeline.reporting import paper
from pipeline.reporting.curves import Line, Panel
from pipeline.reporting.figures import Column, grid_figure
from pipeline.reporting.palette import colorize
from pipeline.reporting.tables import Metrics, Row

SAMPLING = "sampling"  # the file of scores
WHO = {"judge": "judge", "teacher": "teacher", "own": "the LSE itself"}
NO_METHODS = ("after_minus_before", "minus_teacher")

JUDGE_FIRST = """Agreement in %: mean IoU of a sample's mask with its target over the classes, but
the background, that either shows, by eq (7) of the paper; in parentheses the 95 % bootstrap
interval over targets, rough if these are few. Read the judge's columns: a network that guides the
search also favors itself when it scores, as the teacher in the loop does in the column
"teacher"."""

TABLE_3 = f"""{JUDGE_FIRST} before: of the candidates, the one that the method itself finds best;
after: its last z. Few-shot LSEs: mean over refits on other samples, standard deviation (± sd) and
largest deviation from the mean (what the paper prints as ±). class mean: the reference's order,
per class over all samples first. diversity: mean CIELAB distance of the samples of a target; a
search that ends in one picture would have 0. Where the teacher in the loop has fewer samples, they
are the first ones. The paper's column: StyleGAN2-FFHQ, its teacher's masks, other targets."""

RATES = """Agreement (eq 7) in % after so many steps of the search, LSE in the loop, one sample of
each of a few targets: enough to choose a learning rate, too few for more. "the LSE itself" is what
the search optimizes; where it rises and the judge's does not, the search deceives the LSE."""

DIFFERENCES = f"""Paired differences on the same targets, in points. {JUDGE_FIRST} "after minus
before": what the search adds to the choice among candidates; "minus teacher in the loop": both
after the search. An interval that contains 0 tells no difference."""


def all_tables(metrics: Metrics) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """(file name, title, note, table) of each table."""
    title = "Table 3: Semantic-Conditional Sampling"
    yield "table3", title, TABLE_3, agreement_table(metrics)
    yield "table3_rates", "Agreement along the search", RATES, rates_table(metrics)
    title = "Differences of agreement"
    yield "table3_differences", title, DIFFERENCES, differences_table(metrics)


def methods(found: Mapping) -> list[str]:
    """Methods of a file of scores in the order of the tables: teacher, few shots, the full LSE."""
    rank = {"teacher": 0, "lse": 1_000_000}
    names = [name for name in found["masks_by_judge"] if name not in NO_METHODS]
    return sorted(names, key=lambda n: rank.get(n) or shots_of(n))


def shots_of(method: str) -> int:
    """Shots of `fewshot_16`; 0 for another method."""
    return int(method.split("_")[1]) if method.startswith("fewshot_") else 0


def most_shots(found: Mapping) -> str | None:
    """The few-shot method of most shots; None if there is none."""
    few = [method for method in methods(found) if shots_of(method)]
    return few[-1] if few else None


def title_of(method: str) -> str:
    """What a method is called in print."""
    if shots := shots_of(method):
        return f"few-shot LSE, {shots} shot{'s' * (shots > 1)}"
    return {"teacher": "teacher in the loop", "lse": "full LSE"}.get(method, method)


def agreement_table(metrics: Metrics) -> pd.DataFrame:
    """Table 3: a row a study and method, agreement before and after by judge and by teacher."""
    rows = []
    for study, files in metrics.items():
        if not (found := files.get(SAMPLING)):
            continue
        for method in methods(found):
            row: Row = {"study": study, "method": title_of(method)}
            samples = "teacher_samples" if method == "teacher" else "samples"
            row |= {"targets": found["targets"], "samples": found[samples]}
            for who in ("judge", "teacher"):
                row |= _agreement(who, found[f"masks_by_{who}"][method])
            spread = found["diversity_cielab"][method]
            row |= {"diversity, before": spread["before"], "diversity, after": spread["last"]}
            classes = found["masks_by_judge"][method]["last"].get("per_class", {})
            rows.append(row | (_of_the_paper(method) if paper.same_classes(classes) else {}))
    return pd.DataFrame(rows).dropna(axis=1, how="all")  # no deviations of a single refit


def _agreement(who: str, scores: Mapping) -> Row:
    row: Row = {}
    for moment, word in (("before", "before"), ("last", "after")):
        row |= _interval(f"{who}, {word}", scores[moment]["agreement_eq7"])
    over = scores["last"].get("over_refits", {}).get("agreement_eq7", {})
    row[f"{who}, ± sd"] = over.get("standard_deviation")
    row[f"{who}, max. dev."] = over.get("maximum_deviation")
    row[f"{who}, class mean"] = scores["last"]["agreement_class_mean"]["mean"]
    return row


def _interval(column: str, value: Mapping) -> dict[str, float]:
    return {column: value["mean"], f"{column} low": value["low"], f"{column} high": value["high"]}


def _of_the_paper(method: str) -> dict[str, float | None]:
    mean, deviation = paper.SAMPLING.get(shots_of(method), (None, None))
    mean = paper.SAMPLING_TEACHER if method == "teacher" else mean
    return {"paper, FFHQ": mean, "paper max. dev.": deviation}


def rates_table(metrics: Metrics) -> pd.DataFrame:
    """Agreement after so many steps, a row a study, learning rate and network that labels."""
    rows = []
    for study, files in metrics.items():
        for rate, by in _by_rate(files.get(SAMPLING, {})):
            for who, word in WHO.items():
                row: Row = {"study": study, "learning rate": rate, "masks by": word}
                row |= {f"{step} steps": value for step, value in _by_step(by[who])}
                rows.append(row)
    return pd.DataFrame(rows)


def _by_rate(found: Mapping) -> list[tuple[str, Mapping]]:
    return sorted(found.get("by_learning_rate", {}).items(), key=lambda pair: float(pair[0]))


def _by_step(course: Mapping[str, float]) -> list[tuple[int, float]]:
    return sorted((int(step), value) for step, value in course.items())


def differences_table(metrics: Metrics) -> pd.DataFrame:
    """Paired differences with intervals: after minus before, and minus the teacher in the loop."""
    rows = []
    words = {"after_minus_before": "after minus before"}
    words["minus_teacher"] = "minus teacher in the loop"
    for study, files in metrics.items():
        if not (found := files.get(SAMPLING)):
            continue
        for kind, word in words.items():
            for method in methods(found):
                if method not in found["masks_by_judge"][kind]:  # the teacher, minus itself
                    continue
                row: Row = {"study": study, "method": title_of(method), "difference": word}
                row["targets"] = found["targets"]
                for who in ("judge", "teacher"):
                    row |= _interval(who, found[f"masks_by_{who}"][kind][method])
                rows.append(row)
    return pd.DataFrame(rows)


def panels(files: Mapping[str, dict]) -> list[Panel]:
    """Agreement against steps for each learning rate, by the judge and by the LSE in the loop."""
    courses = _by_rate(files.get(SAMPLING, {}))
    found = []
    for who, title in (("judge", "by the judge"), ("own", "by the LSE in the loop")):
        lines = {f"learning rate {rate}": Line(*_xy(by[who])) for rate, by in courses}
        if lines:
            ticks = next(iter(lines.values())).x
            y = "agreement (eq 7), %"
            found.append(Panel(f"Masks {title}", "steps", y, lines, ticks=ticks))
    return found


def _xy(course: Mapping[str, float]) -> tuple[list[int], list[float]]:
    pairs = _by_step(course)
    return [step for step, _ in pairs], [value for _, value in pairs]


def draw_study(sampled: Path, figure: Path, most: int) -> None:
    """Figure 6 from what measure_sampling wrote: the first sample of each of so many targets."""
    group = Group(sampled)
    classes = group.attributes["classes"]
    targets = group.read("targets", "masks")
    shown = min(most, len(targets))
    columns = [Column("target", colorize(targets[:shown], classes))]
    for key in few_methods(group.splits):
        step = group.splits[key] // len(targets)  # samples of a target, one after another
        rows = slice(0, shown * step, step)
        masks = group.read(key, "judge_last", rows)
        values = agreement_eq7(*count(masks[:, None], targets[:shown], len(classes)))[:, 0]
        captions = [f"agreement {100 * value:.0f} %" for value in values]
        images = group.read(key, "images_last", rows).transpose(0, 2, 3, 1)
        columns += [
            Column(_short(key), images),
            Column("judge's mask", colorize(masks, classes), captions),
        ]
    grid_figure(figure, columns, [f"target {i}" for i in range(shown)], classes)


def few_methods(keys: Collection[str]) -> list[str]:
    """Groups that the figure shows: teacher, first refit at fewest and at most shots, full LSE."""
    refits = sorted(
        (k for k in keys if k.startswith("fewshot_") and k.endswith("_0")), key=shots_of
    )
    ends = dict.fromkeys(refits[:1] + refits[-1:])
    return [key for key in ("teacher", *ends, "lse") if key in keys]


def _short(key: str) -> str:
    if shots := shots_of(key):
        return f"LSE, {shots} shot{'s' * (shots > 1)}"
    return {"teacher": "by the teacher", "lse": "full LSE"}[key]
