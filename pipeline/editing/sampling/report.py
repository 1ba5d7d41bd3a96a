"""Scores of Semantic-Conditional Sampling: agreement with the targets, and diversity.

Every network that labels has scores of its own: the method's own segmenter (what the search
optimized, so no evidence), the teacher (the paper's), and a judge that no method has seen.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from pipeline.analysis.fewshot.scores import statistics, write_table
from pipeline.data.arrays import write_group
from pipeline.editing.sampling.pieces import LOOKED_AT, MOMENTS, Method
from pipeline.editing.sampling.study import Found
from pipeline.metrics import agreement
from pipeline.metrics.color import diversity
from pipeline.runtime.files import write_json

WHO = ("own", "teacher", "judge")
SEEN = {"own": MOMENTS, "teacher": LOOKED_AT, "judge": LOOKED_AT}  # moments by who labels

Arrays = Mapping[str, np.ndarray]  # of a method, [target, sample, ...]
Targets = UInt8[np.ndarray, "target size size"]


def eq7(
    arrays: Arrays, who: str, moment: str, targets: Targets, num_classes: int
) -> Float[np.ndarray, "target sample"]:
    """Agreement of every sample by one network's masks at one moment of the search."""
    return agreement.agreement_eq7(
        *agreement.count(arrays[f"{who}_{moment}"], targets, num_classes)
    )


def rows(found: Found, targets: Targets, num_classes: int) -> list[dict]:
    """A table row a method, sample, moment and network: the agreement in percent."""
    table = []
    for method, arrays in found.methods.items():
        for who, moments in SEEN.items():
            for moment in moments:
                values = eq7(arrays, who, moment, targets, num_classes)
                for (target, sample), value in np.ndenumerate(values):
                    table.append(
                        {
                            "method": method.name,
                            "shots": method.shots or "",
                            "refit": method.refit if method.shots else "",
                            "target": target,
                            "sample": sample,
                            "moment": moment,
                            "masks_by": who,
                            "agreement_eq7": round(100 * float(value), 3),
                        }
                    )
    return table


def scores(group: Sequence[Arrays], who: str, targets: Targets, classes: Sequence[str]) -> dict:
    """Of one method or all refits of one: agreement at every moment, by one network's masks.

    Intervals resample targets, after the mean over samples and refits; `over_refits` has the mean,
    standard deviation and largest deviation over refits.
    """
    found: dict = {}
    for moment in SEEN[who]:
        counts = [
            agreement.count(arrays[f"{who}_{moment}"], targets, len(classes)) for arrays in group
        ]
        each = np.stack([agreement.agreement_eq7(*pair).mean(1) for pair in counts])
        by_class = np.stack([agreement.per_class(*pair) for pair in counts])
        class_means = [100 * agreement.agreement_class_mean(*pair) for pair in counts]
        found[moment] = {
            "agreement_eq7": agreement.summary(each.mean(0)),
            "agreement_class_mean": {"mean": round(float(np.mean(class_means)), 3)},
            "per_class": {
                name: _percent(column) for name, column in zip(classes, by_class.T, strict=True)
            },
        }
        if len(group) > 1:
            over = {
                "agreement_eq7": (100 * each.mean(1)).tolist(),
                "agreement_class_mean": class_means,
            }
            found[moment]["over_refits"] = {k: statistics(v) for k, v in over.items()}
    return found


def _percent(values: np.ndarray) -> float | None:
    """Mean of what is not NaN, in percent."""
    known = values[~np.isnan(values)]
    return round(100 * float(known.mean()), 3) if len(known) else None


def groups(found: Found) -> dict[str, list[Arrays]]:
    """Arrays by method; refits of one number of shots together, as `fewshot_16`."""
    together: dict[str, list[Arrays]] = {}
    for method, arrays in found.methods.items():
        together.setdefault(_label(method), []).append(arrays)
    return together


def _label(method: Method) -> str:
    return f"{method.name}_{method.shots}" if method.shots else method.name


def differences(
    together: Mapping[str, Sequence[Arrays]], who: str, targets: Targets, num_classes: int
) -> dict:
    """Paired differences of agreement_eq7 with intervals over targets.

    `after_minus_before`: what the search adds to the choice among candidates. `minus_teacher`: what
    a method is above the network in the loop, on the same targets, samples and candidates.
    """

    def values(name: str, moment: str, samples: int | None = None) -> np.ndarray:
        each = [eq7(a, who, moment, targets, num_classes)[:, :samples] for a in together[name]]
        return np.mean([one.mean(1) for one in each], 0)

    paired = together["teacher"][0]["losses"].shape[1]

    found: dict = {"after_minus_before": {}, "minus_teacher": {}}
    for name in together:
        gain = values(name, "last") - values(name, "before")
        found["after_minus_before"][name] = agreement.summary(gain)
        if name != "teacher":
            lead = values(name, "last", paired) - values("teacher", "last")
            found["minus_teacher"][name] = agreement.summary(lead)
    return found


def spread(group: Sequence[Arrays]) -> dict:
    """Mean CIELAB distance among the samples of one target, before and after the search."""
    found = {}
    for moment in LOOKED_AT:
        each = [diversity(images) for arrays in group for images in arrays[f"images_{moment}"]]
        mean = float(np.mean(each))
        found[moment] = None if np.isnan(mean) else round(mean, 3)
    return found


def courses(found: Found, targets: Targets, num_classes: int) -> dict:
    """Agreement after so many steps by learning rate and network, in percent."""
    result: dict = {}
    for rate, arrays in found.rates.items():
        few = targets[: len(arrays["losses"])]
        looks = sorted(int(k.removeprefix("own_step")) for k in arrays if k.startswith("own_step"))
        result[f"{rate:g}"] = {
            who: {
                str(k): round(100 * float(eq7(arrays, who, f"step{k}", few, num_classes).mean()), 3)
                for k in looks
            }
            for who in WHO
        }
    return result


def report(found: Found, targets: Targets, classes: Sequence[str]) -> dict:
    """All scores as a JSON value: by network, then by method."""
    together = groups(found)
    result: dict = {"targets": len(targets)}
    counts = {m.name: arrays["losses"].shape[1] for m, arrays in found.methods.items()}
    result |= {"samples": counts["lse"], "teacher_samples": counts["teacher"]}
    result["diversity_cielab"] = {name: spread(group) for name, group in together.items()}
    result["by_learning_rate"] = courses(found, targets, len(classes))
    for who in WHO:
        result[f"masks_by_{who}"] = {
            name: scores(group, who, targets, classes) for name, group in together.items()
        } | differences(together, who, targets, len(classes))
    return result


def pictures(found: Found, targets: Targets) -> dict[str, np.ndarray]:
    """What figures and tables of samples need: {`<method>/<array>`: [target * sample, ...]}.

    z at every moment, images and masks by teacher and own segmenter, before and after the search.
    """
    arrays: dict[str, np.ndarray] = {"targets/masks": targets}
    wanted = [f"z_{moment}" for moment in MOMENTS]
    wanted += [f"{k}_{m}" for k in ("images", *WHO) for m in ("before", "last")]
    for method, own in found.methods.items():
        for name in wanted:
            arrays[f"{method.key}/{name}"] = own[name].reshape(-1, *own[name].shape[2:])
    return arrays


def write(
    found: Found,
    targets: Targets,
    classes: Sequence[str],
    sampled: Path,
    metrics: Path,
    table: Path,
) -> None:
    """Write samples (zarr), scores (JSON) and a row a sample (CSV)."""
    write_json(metrics, report(found, targets, classes))
    write_table(table, rows(found, targets, len(classes)))
    write_group(sampled, pictures(found, targets), {"classes": list(classes)})
