"""Results as sentences, each with its numbers: functions of a study's files, for `contents`."""

from collections.abc import Mapping

from pipeline.extractors.registry import title_of
from pipeline.reporting import editing, fewshot, geometry, sampling, tables

PAPER_GAP = 3.5  # %: what the paper claims an LSE loses to the best NSE, at most
CLOSE = 1  # point of mIoU: what a set of few taps may lose to all


def to_nse(files: Mapping[str, dict]) -> list[str]:
    """The LSE beside the best nonlinear extractor, a sentence per protocol."""
    lines = []
    found = files.get("comparison", {})
    for protocol in [name for name in tables.PROTOCOLS if name in found]:
        value = found[protocol]
        best, row = value["best"], value["minus_best"]["lse"]
        lse, nse = (_score(files[name]["against_teacher"][protocol]) for name in ("lse", best))
        relative = {"low": row["relative_low"], "high": row["relative_high"]}
        held = "holds" if row["relative"] >= -PAPER_GAP else "does not hold"
        lines.append(
            f"by `{protocol}`, the LSE scores {lse}, the best NSE ({title_of(best)}) "
            f"{nse}. On the same images, the LSE's score differs from the NSE's by "
            f"{row['relative']:+.1f} % ({relative['low']:+.1f} to {relative['high']:+.1f})"
            f"{_verdict(relative)}. The paper claims that an LSE loses at most {PAPER_GAP} %; here "
            f"this {held}."
        )
    return lines


def l2_at_an_end(files: Mapping[str, dict]) -> list[str]:
    """Whether the chosen strength is at an end of its candidates, so that the list is short."""
    fit = files.get("lse_fit", {})
    if "l2_candidates" not in fit or len(fit["l2_candidates"]) == 1:
        return []
    ends = {min: "smallest", max: "largest"}
    found = [word for end, word in ends.items() if fit["l2"] == end(fit["l2_candidates"])]
    return [
        f"validation chose an L2 of {fit['l2']:g} for the LSE, the {word} of the candidates: one "
        "beyond it might fit better (`fit_rule.l2` of params.yaml)."
        for word in found
    ]


def nse_training(files: Mapping[str, dict]) -> list[str]:
    """How much training the best nonlinear extractor had."""
    best = files.get("comparison", {}).get("miou_per_image", {}).get("best")
    fit = files.get(f"{best}_fit", {})
    if "passes" not in fit:
        return []
    width = f", with at most {fit['width']} channels per map" if fit.get("width") else ""
    return [f"the best NSE was trained on {fit['passes']:.3g} windows per sample{width}."]


def to_control(files: Mapping[str, dict]) -> list[str]:
    """The LSE beside its own classifier on features that no generator learned."""
    if not (best := tables.strongest_control(files)):
        return []
    gaps = files["controls"][best]["lse_minus_control"]["against_teacher"]
    words = [f"{_points(gaps[name])} points of `{name}`" for name in tables.PROTOCOLS]
    return [
        "compared with the same classifier on features that no generator learned "
        f"(`{best}`, the strongest of the controls), the LSE differs by {' and '.join(words)}."
    ]


def kept_classes(files: Mapping[str, dict]) -> list[str]:
    """Which classes are predicted well enough to be kept."""
    found = files.get("selection")
    if not found:
        return []
    dropped = ", ".join(found["dropped"]) or "none"
    number = len(found["kept"]) + len(found["dropped"])
    return [
        f"{len(found['kept'])} of {number} classes are kept, because an extractor predicts them "
        f"with an IoU above {found['threshold']:g} %. Dropped: {dropped}."
    ]


def to_full_lse(files: Mapping[str, dict]) -> list[str]:
    """Which class a few shots lose most on, and what of the gap to the full LSE it makes up."""
    by_shots = files.get(fewshot.SWEEP, {}).get("full")
    if not by_shots:
        return []
    shots = max(map(int, by_shots))
    few = by_shots[str(shots)]["iou_per_image"]
    full = files["lse"]["against_teacher"]["miou_per_image"]["per_class"]
    gaps = {name: full[name] - few[name] for name in few}
    worst = max(gaps, key=gaps.__getitem__)
    without = [n for n in few if n != worst]
    if not sum(full[n] for n in without):  # one class, or none that the full LSE knows
        return []
    share = 100 * sum(few[n] for n in without) / sum(full[n] for n in without)
    part, whole = gaps[worst] / len(gaps), sum(gaps.values()) / len(gaps)
    return [
        f"with {shots} annotated samples, the LSE loses most on {worst}: an IoU of "
        f"{few[worst]:.1f} % instead of the full LSE's {full[worst]:.1f} %. This class makes "
        f"{part:.1f} of the {whole:.1f} points between the two means; on the other classes, the "
        f"few-shot LSE reaches {share:.1f} % of the full LSE."
    ]


def to_random_samples(files: Mapping[str, dict]) -> list[str]:
    """What choosing the samples to annotate gains, a sentence per strategy."""
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
            f"this {word} with {', '.join(map(str, sorted(shots)))} samples"
            for word, shots in (("helps", helps), ("harms", harms))
            if shots
        )
        words = ", ".join(
            f"{g['mean']:+.1f} ± {g['plus_minus']:.1f}" for _, g in sorted(gains.items())
        )
        shots = "/".join(map(str, sorted(gains)))
        lines.append(
            f"annotating `{name}` samples instead of random ones changes `miou_per_image` by "
            f"{words} points with {shots} samples (95 % interval over repeats): "
            f"{verdict or 'no difference can be told'}."
        )
    return lines


def enough_taps(found: Mapping) -> Mapping | None:
    """The smallest chosen set of taps that surely loses at most a point; None if none does.

    Surely: the 95 % interval of its `miou_dataset` minus that of all taps begins at -1 or above. An
    interval that only contains 0 may be as wide as a rare class makes it, and moves with that.
    """
    name = tables.PROTOCOLS[1]
    close = (few for few in found["nested"] if few["minus_all"][name]["low"] >= -CLOSE)
    return next(close, None)


def few_taps(files: Mapping[str, dict]) -> list[str]:
    """What the smallest sufficient set of taps loses; else the largest that was tried."""
    if not (found := files.get(geometry.GEOMETRY)):
        return []
    name, whole = tables.PROTOCOLS[1], found["all"]
    enough = enough_taps(found)
    few = enough or found["nested"][-1]
    gap = few["minus_all"][name]
    verdict = "surely not more" if enough else "perhaps more"
    return [
        f"{len(few['taps'])} of {len(whole['taps'])} taps ({', '.join(few['taps'])}), "
        f"{few['mb']:.3g} of {whole['mb']:.3g} MB per sample, reach {few[name]['mean']:.1f} % "
        f"`{name}`. Compared with all taps, fitted on the same pixels, that is {gap['mean']:+.1f} "
        f"points ({gap['low']:+.1f} to {gap['high']:+.1f}), {verdict} than {CLOSE} point below."
    ]


def to_sampling(files: Mapping[str, dict]) -> list[str]:
    """What conditional sampling by the LSE of most shots reaches, by the judge."""
    found = files.get(sampling.SAMPLING)
    if not found or not (method := sampling.most_shots(found)):
        return []
    scores = found["masks_by_judge"]
    before, after = (scores[method][moment]["agreement_eq7"] for moment in ("before", "last"))
    gap = scores["minus_teacher"][method]
    return [
        f"guided by the LSE of {sampling.shots_of(method)} annotated samples, the search for "
        f"images of {found['targets']} target masks takes the agreement with the target, as the "
        f"judge sees it, from {before['mean']:.1f} % to {_score(after)}. Compared with the teacher "
        f"as the guide, that is {_points(gap)} points{_verdict(gap)}."
    ]


def to_editing(files: Mapping[str, dict]) -> list[str]:
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
        method = row["method"].removesuffix(" minus teacher")
        words.append(f"{method} {_points(gap)}{_verdict(gap)}")
    counts = {method: scores["count"] for method, scores in found["edited"].items()}
    few = f" ({counts['teacher']} by the teacher)" if len(set(counts.values())) > 1 else ""
    return [
        f"in {max(counts.values())} semantic edits{few}, the edited region agrees with its target "
        f"to an IoU of (in %, as the judge sees it): {scores}. Compared with the teacher as the "
        f"guide, on the same edits, in points: {'; '.join(words)}."
    ]


def _score(value: Mapping[str, float]) -> str:
    return f"{value['mean']:.1f} % ({value['low']:.1f} to {value['high']:.1f})"


def _points(gap: Mapping[str, float]) -> str:
    return f"{gap['mean']:+.1f} ({gap['low']:+.1f} to {gap['high']:+.1f})"


def _verdict(gap: Mapping[str, float]) -> str:
    return ", no difference can be told" if gap["low"] <= 0 <= gap["high"] else ""
