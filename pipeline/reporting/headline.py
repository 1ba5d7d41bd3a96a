"""Headline metrics: at most twenty numbers per study, rounded to what their intervals support.

They are the project's only `metrics:`, so `dvc metrics diff` and `dvc exp show` print these alone.
"""

import math
from collections.abc import Callable, Mapping

from pipeline.reporting.findings import enough_taps
from pipeline.reporting.sampling import most_shots
from pipeline.reporting.tables import strongest_control

Files = Mapping[str, dict]
FINEST = 0.1  # of a percent or point: no interval here supports more digits


def headline(files: Files, shots: int) -> dict[str, float]:
    """{name: value} of a study's results; what was not measured is left out.

    `shots` are the annotated samples of the few-shot values. Scores are in percent, differences in
    points, without the background class.
    """
    values = {name: measure(files, shots) for name, measure in HEADLINES.items()}
    return {name: value for name, value in values.items() if value is not None}


def supported(value: Mapping[str, float | None], factor: float = 1.0) -> float | None:
    """`mean` rounded to the power of ten that half the width of [low, high] spans, in percent."""
    mean, low, high = (value.get(name) for name in ("mean", "low", "high"))
    if mean is None:
        return None
    reach = 0.0 if low is None or high is None else factor * (high - low) / 2
    unit = max(FINEST, 10.0 ** math.floor(math.log10(reach))) if reach > 0 else FINEST
    rounded = round(factor * mean / unit) * unit
    return round(rounded, 1) if unit < 1 else round(rounded)


def share(mean: float, count: int) -> float | None:
    """A share of so many cases in percent, rounded to what its 95 % Wilson interval supports.

    The bootstrap has no width where no case or every case counts; this interval has.
    """
    z = 1.96
    center, total = (mean * count + z * z / 2) / (count + z * z), count + z * z
    reach = z / total * math.sqrt(count * mean * (1 - mean) + z * z / 4)
    return supported({"mean": mean, "low": center - reach, "high": center + reach}, 100)


def _lse(files: Files, against: str, protocol: str) -> float | None:
    scores = files.get("lse", {}).get(f"against_{against}")
    return supported(scores[protocol]) if scores else None


def _ceiling(files: Files, shots: int) -> float | None:
    return supported(files["ceiling"]["miou_dataset"]) if "ceiling" in files else None


def _best_nse(files: Files, shots: int) -> float | None:
    best = files.get("comparison", {}).get("miou_per_image", {}).get("best")
    return supported(files[best]["against_teacher"]["miou_per_image"]) if best in files else None


def _minus_nse(files: Files, shots: int) -> float | None:
    if "comparison" not in files:
        return None
    row = files["comparison"]["miou_per_image"]["minus_best"]["lse"]
    relative = {"mean": "relative", "low": "relative_low", "high": "relative_high"}
    return supported({name: row[key] for name, key in relative.items()})


def _control(files: Files, shots: int) -> float | None:
    name = strongest_control(files)
    return supported(files["controls"][name]["against_teacher"]["miou_per_image"]) if name else None


def _minus_control(files: Files, shots: int) -> float | None:
    if not (name := strongest_control(files)):
        return None
    return supported(files["controls"][name]["lse_minus_control"]["against_teacher"][PER_IMAGE])


def _centers(files: Files, shots: int) -> float | None:
    claims = files.get("geometry", {}).get("claims")
    return supported(claims["centers_segment"]) if claims else None


def _enough_taps(files: Files, shots: int) -> int | None:
    """Taps of the smallest set that surely loses at most a point; of all taps if none does."""
    found = files.get("geometry")
    return len((enough_taps(found) or found["all"])["taps"]) if found else None


def _classes(files: Files, shots: int) -> int | None:
    return len(files["selection"]["kept"]) if "selection" in files else None


def _fewshot(files: Files, key: str) -> float | None:
    """Of the mean over repeats, or its share of the full LSE: spread is the largest deviation."""
    scores = files.get("fewshot", {}).get("miou_per_image")
    if not scores:
        return None
    scale = scores[key] / scores["mean"] if scores["mean"] else 1.0
    reach = scores["maximum_deviation"] * scale
    return supported({"mean": scores[key], "low": scores[key] - reach, "high": scores[key] + reach})


def _scs(files: Files, shots: int, kind: str) -> float | None:
    """Agreement with the targets after the search with the LSE of `shots`, by the judge."""
    sampling = files.get("sampling")
    method: str | None = f"fewshot_{shots}"
    if sampling and method not in sampling["masks_by_judge"]:
        method = most_shots(sampling)  # annotations of people: as many as they drew
    if not sampling or not method:
        return None
    scores = sampling["masks_by_judge"]
    if kind == "agreement":
        return supported(scores[method]["last"]["agreement_eq7"])
    return supported(scores[kind][method])


def _edited_region(files: Files, shots: int) -> float | None:
    scores = files.get("editing", {}).get("edited", {}).get("fewshot")
    return supported(scores["iou_region_judge"], 100) if scores else None


def _edit_success(files: Files, shots: int) -> float | None:
    scores = files.get("editing", {}).get("edited", {}).get("full")
    return share(scores["success"]["mean"], scores["count"]) if scores else None


def _edits_minus_teacher(files: Files, shots: int) -> float | None:
    paired = files.get("editing", {}).get("paired", {}).get("fewshot - teacher")
    return supported(paired["iou_region_judge"], 100) if paired else None


def _sefa(files: Files, shots: int) -> float | None:
    """Share of SeFa's directions, in the first range of layers, with an effect."""
    ranges = files.get("directions", {}).get("ranges")
    if not ranges:
        return None
    first = next(iter(ranges.values()))
    return share(first["obvious"]["sefa"]["either"], first["measured"])


PER_IMAGE = "miou_per_image"
HEADLINES: dict[str, Callable[[Files, int], float | None]] = {
    "lse_miou_per_image": lambda files, shots: _lse(files, "teacher", PER_IMAGE),
    "lse_miou_dataset": lambda files, shots: _lse(files, "teacher", "miou_dataset"),
    "lse_vs_judge_miou_dataset": lambda files, shots: _lse(files, "judge", "miou_dataset"),
    "teacher_vs_judge_miou_dataset": _ceiling,
    "best_nse_miou_per_image": _best_nse,
    "lse_minus_best_nse_pct": _minus_nse,
    "best_control_miou_per_image": _control,
    "lse_minus_best_control": _minus_control,
    "class_centers_pct_of_lse": _centers,
    "taps_within_1_point_of_all": _enough_taps,
    "classes_kept": _classes,
    "fewshot_miou_per_image": lambda files, shots: _fewshot(files, "mean"),
    "fewshot_pct_of_full_lse": lambda files, shots: _fewshot(files, "of_full_lse"),
    "sampling_agreement_fewshot_lse": lambda files, shots: _scs(files, shots, "agreement"),
    "sampling_fewshot_lse_minus_teacher": lambda files, shots: _scs(files, shots, "minus_teacher"),
    "edit_region_iou_fewshot_lse": _edited_region,
    "edit_fewshot_lse_minus_teacher": _edits_minus_teacher,
    "edit_success_pct_full_lse": _edit_success,
    "sefa_pct_stronger_than_random": _sefa,
}
