"""Results as sentences: one per question and study, with its numbers."""

from collections.abc import Mapping

from pipeline.reporting import directions, editing, fewshot, geometry, sampling, tables

PAPER_GAP = 3.5  # %: what the paper claims an LSE loses to the best NSE, at most


def findings(metrics: tables.Metrics) -> list[str]:
    """One sentence per question and study, with its numbers."""
    lines = []
    for study, files in metrics.items():
        for describe in (
            *(_to_nse, _to_control, geometry.findings, _to_selection, _to_full, _to_random),
            *(_to_sampling, _to_editing, directions.findings),
        ):
            lines += [f"`{study}`: {line}" for line in describe(files)]
    return lines


def _to_nse(files: Mapping[str, dict]) -> list[str]:
    lines = []
    for protocol, value in files.get("comparison", {}).items():
        best, row = value["best"], value["minus_best"]["lse"]
        fit = files.get(f"{best}_fit", {})
        held = "within" if row["relative"] >= -PAPER_GAP else "outside"
        seen = f"{fit.get('passes', 0):.3g} windows a sample{_width(fit)}"
        lines.append(
            f"the LSE's `{protocol}` differs by {row['relative']:+.1f} % "
            f"({row['relative_low']:+.1f} to {row['relative_high']:+.1f}) from the best NSE's "
            f"({tables.EXTRACTORS[best]}, trained on {seen}): {held} the paper's claim of "
            f"{PAPER_GAP} % below at most."
        )
    return lines


def _width(fit: Mapping) -> str:
    return f", {fit['width']} channels wide" if fit.get("width") else ""


def _to_control(files: Mapping[str, dict]) -> list[str]:
    if not (best := tables.strongest_control(files)):
        return []
    gaps = files["controls"][best]["lse_minus_control"]["against_teacher"]
    words = [
        f"{gap['mean']:+.1f} ({gap['low']:+.1f} to {gap['high']:+.1f}) in `{protocol}`"
        for protocol, gap in gaps.items()
    ]
    return [f"the LSE minus the strongest control, `{best}`: {' and '.join(words)}, points."]


def _to_selection(files: Mapping[str, dict]) -> list[str]:
    found = files.get("selection")
    if not found:
        return []
    dropped = ", ".join(found["dropped"]) or "none"
    number = len(found["kept"]) + len(found["dropped"])
    return [
        f"category selection keeps {len(found['kept'])} of {number} classes "
        f"(IoU above {found['threshold']:g} %); dropped: {dropped}."
    ]


def _to_full(files: Mapping[str, dict]) -> list[str]:
    """Which class a few shots lose most on, and what of the gap to the full LSE it makes up."""
    by_shots = files.get(fewshot.SWEEP, {}).get("full")
    if not by_shots:
        return []
    shots = max(map(int, by_shots))
    few = by_shots[str(shots)]["iou_per_image"]
    full = files["lse"]["against_teacher"]["miou_per_image"]["per_class"]
    gaps = {name: full[name] - few[name] for name in few}
    worst = max(gaps, key=gaps.get)
    without = [n for n in few if n != worst]
    if not sum(full[n] for n in without):  # one class, or none that the full LSE knows
        return []
    share = 100 * sum(few[n] for n in without) / sum(full[n] for n in without)
    part, whole = gaps[worst] / len(gaps), sum(gaps.values()) / len(gaps)
    return [
        f"{shots} shots lose most on {worst} (IoU {few[worst]:.1f} against the full LSE's "
        f"{full[worst]:.1f}: {part:.1f} of the {whole:.1f} points between the means); on the other "
        f"classes they reach {share:.1f} % of the full LSE."
    ]


def _to_random(files: Mapping[str, dict]) -> list[str]:
    lines = []
    for name, by_shots in fewshot.by_strategy(files).items():
        gains = {
            int(shots): gain
            for shots, value in by_shots.items()
            if (gain := value.get("gain", {}).get("miou_per_image")) and gain["plus_minus"]
        }
        if not gains:
            continue
        helps = [s for s, g in gains.items() if g["mean"] > g["plus_minus"]]
        harms = [s for s, g in gains.items() if -g["mean"] > g["plus_minus"]]
        verdict = "; ".join(
            f"{word} at {', '.join(map(str, sorted(shots)))} shots"
            for word, shots in (("helps", helps), ("harms", harms))
            if shots
        )
        words = ", ".join(
            f"{g['mean']:+.1f} ± {g['plus_minus']:.1f}" for _, g in sorted(gains.items())
        )
        shots = "/".join(map(str, sorted(gains)))
        lines.append(
            f"annotating `{name}` samples instead of random ones gains {words} points at {shots} "
            f"shots (95 % t interval): {verdict or 'no difference can be told'}."
        )
    return lines


def _to_sampling(files: Mapping[str, dict]) -> list[str]:
    """What conditional sampling by the LSE of most shots reaches, by the judge."""
    found = files.get(sampling.SAMPLING)
    if not found or not (method := sampling.most_shots(found)):
        return []
    scores = found["masks_by_judge"]
    before, after = (scores[method][moment]["agreement_eq7"] for moment in ("before", "last"))
    gap = scores["minus_teacher"][method]
    return [
        f"conditional sampling with the {sampling.shots_of(method)}-shot LSE in the loop takes the "
        f"agreement with {found['targets']} target masks, as the judge sees it, from "
        f"{before['mean']:.1f} to {after['mean']:.1f} % ({after['low']:.1f} to "
        f"{after['high']:.1f}); minus the teacher in the loop: {_points(gap)} points"
        f"{_verdict(gap)}."
    ]


def _to_editing(files: Mapping[str, dict]) -> list[str]:
    """How well edits show what they ask for, by the judge, against the teacher in the loop."""
    found = files.get(editing.EDITING)
    if not found:
        return []
    table = editing.edits_table({"": files}).set_index("method")["region IoU, judge"]
    scores = ", ".join(f"{method} {iou:.1f}" for method, iou in table.items())
    gaps = editing.differences_table({"": files})
    column = "region IoU, judge"
    words = []
    for _, row in gaps.iterrows():
        gap = {"mean": row[column], "low": row[f"{column} low"], "high": row[f"{column} high"]}
        words.append(
            f"{row['method'].removesuffix(' minus teacher')} {_points(gap)}{_verdict(gap)}"
        )
    counts = {method: scores["count"] for method, scores in found["edited"].items()}
    few = f" ({counts['teacher']} by the teacher)" if len(set(counts.values())) > 1 else ""
    return [
        f"{max(counts.values())} semantic edits{few}, IoU of the edited region with its target, "
        "as the judge sees it: "
        f"{scores} %; minus the teacher in the loop: {'; '.join(words)}."
    ]


def _points(gap: Mapping[str, float]) -> str:
    return f"{gap['mean']:+.1f} ({gap['low']:+.1f} to {gap['high']:+.1f})"


def _verdict(gap: Mapping[str, float]) -> str:
    return ", no difference can be told" if gap["low"] <= 0 <= gap["high"] else ""
