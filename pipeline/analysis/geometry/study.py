"""How classes lie in a generator's features: centers, cosines, and what each tap knows alone.

Xu & Zheng (CVPR 2021): figures 4, 9 and 10, algorithm 1 and eq (8). All extractors here are linear,
class centers too: dividing a pixel by its norm does not change which center is the nearest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.analysis.geometry import centers as geometry
from pipeline.analysis.geometry import tap_fits
from pipeline.analysis.geometry.fair_sampling import SCALES, fair_similarity
from pipeline.analysis.geometry.options import Settings
from pipeline.analysis.geometry.tap_fits import Pixels
from pipeline.data.arrays import Group
from pipeline.data.features import stream
from pipeline.data.inputs import Study
from pipeline.data.stores import Store
from pipeline.extractors import solvers
from pipeline.extractors.fitting import Choice, Columns
from pipeline.extractors.networks import LSE, Extractor
from pipeline.extractors.prediction import confusions, stack, stacked_masks
from pipeline.generators.taps import Tap
from pipeline.metrics.bootstrap import percentiles
from pipeline.metrics.iou import (
    PROTOCOLS,
    PixelCounts,
    intersection_union,
    miou_interval,
    paired_interval,
    percent,
    resampled_means,
    summary,
)
from pipeline.runtime.errors import InputError
from pipeline.runtime.progress import say

SHARES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)  # of pixels that a single channel is on for
DETECTOR_PIXELS = 4096  # at most, for single channels
THINNED = 4  # greedy selection reads every fourth pixel
SHOWN = ("lse", "centers", "layered")  # in pictures, by how their names begin
ENOUGH = 50.0  # %: centers `segment` if they reach this share of the LSE's mIoU


def measure_geometry(
    study: Study, store: Store, lse: Extractor, settings: Settings, workers: int
) -> tuple[dict, dict[str, np.ndarray]]:
    """Fit, score and compare; return the report, and masks for pictures with their rows."""
    _check(study, lse, settings)
    train, held = tap_fits.read(store, settings.pixel_budget, study.source.device)
    detected = _detectors(study, train, held)
    sums = {"raw": class_sums(train, len(study.classes))}
    pixels = tap_fits.prepare(train, held, store)
    scaled = Columns(pixels.data.x, pixels.data.y, pixels.data.weights)
    sums["scaled"] = class_sums(scaled, len(study.classes))
    centers = {kind: geometry.centers(value) for kind, value in sums.items()}

    fits = fit_all(pixels, settings)
    extractors = {"lse": lse} | center_extractors(pixels, centers)
    extractors |= fits.extractors(pixels)
    extractors = dict(sorted(extractors.items(), key=lambda pair: _resolutions(pair[1])))
    counted = confusions(list(extractors.values()), study.source, study.masks, "test", workers)
    found = dict(zip(extractors, counted, strict=True))

    scale = pixels.data.scale.cpu().numpy()
    report = {
        "pixels": len(pixels.data.x),
        "lse": _summary(found["lse"], study.classes),
        "centers": {
            kind: _summary(found[f"centers_{kind}"], study.classes)
            | {"of_lse": _of(found[f"centers_{kind}"], found["lse"])}
            for kind in SCALES
        },
        "alignment": _alignment(study, pixels, lse, centers),
        "detectors": detected,
        "similarity": fair_similarity(study, scale, settings, workers),
        "layer_weight": settings.layer_weight,
    } | fits.report(pixels, found)
    report["claims"] = claims(report, fits, found)
    shown = {k: v for k, v in extractors.items() if k.startswith(SHOWN)}
    return report, _pictures(study, shown, settings)


def _check(study: Study, lse: Extractor, settings: Settings) -> None:
    if min(settings.greedy_taps, settings.shown) < 1:
        raise InputError(
            f"greedy_taps {settings.greedy_taps} and shown {settings.shown}",
            "at least 1 of each",
            "raise greedy_taps or shown",
        )
    if not isinstance(lse, LSE) or lse.bias is not None:
        raise InputError(
            "an LSE with a bias" if isinstance(lse, LSE) else f"an {type(lse).__name__}",
            "an LSE without one",
            "name the fitted extractor `lse` of the study",
        )
    if lse.taps != study.taps or list(lse.classes) != list(study.classes):
        raise InputError(
            f"an LSE of {len(lse.taps)} taps and classes {', '.join(lse.classes)}",
            f"{len(study.taps)} taps and classes {', '.join(study.classes)}",
            "name the fitted extractor `lse` of the same study",
        )
    if not Group(study.masks).splits.get("test"):
        raise InputError("no test samples", "at least one", "raise the study's sample.test")


def class_sums(columns: Columns, num_classes: int) -> np.ndarray:
    """Weighted sums [class, channel] of unit hypercolumns, block by block."""
    total = np.zeros((num_classes, columns.x.shape[1]))
    parts = (values.split(solvers.ROWS) for values in (columns.x, columns.y, columns.weights))
    for x, y, weights in zip(*parts, strict=True):
        total += geometry.unit_sums(*_arrays(x, y, weights), num_classes)[0]
    return total


def _arrays(x: Tensor, y: Tensor, weights: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return x.float().cpu().numpy(), y.cpu().numpy(), weights.cpu().numpy()


def center_extractors(pixels: Pixels, centers: Mapping[str, np.ndarray]) -> dict[str, LSE]:
    """Class centers as LSEs: the nearest by cosine has the largest dot product."""
    scale = pixels.data.scale[:, None]
    # `extractor` divides by the scale, which raw centers do not want.
    matrices = {kind: torch.from_numpy(value).float().T for kind, value in centers.items()}
    matrices = {kind: matrix.to(scale.device) for kind, matrix in matrices.items()}
    return {
        "centers_raw": pixels.extractor(matrices["raw"] * scale),
        "centers_scaled": pixels.extractor(matrices["scaled"]),
    }


TapSet = tuple[int, ...]  # indices of taps


@dataclass(frozen=True)
class Fits:
    """Everything that was fitted."""

    layered: Choice  # eq (8)
    sets: dict[TapSet, Choice]  # eq (1) over some taps: each alone, the sets below, and all
    resolutions: dict[int, TapSet]
    nested: list[TapSet]  # by greedy selection

    @property
    def whole(self) -> TapSet:
        """All taps."""
        return max(self.sets, key=len)

    def extractors(self, pixels: Pixels) -> dict[str, LSE]:
        """One by name: of each fit, and of each tap's part of eq (8)."""
        found = {_name(taps): pixels.extractor(fit.matrix, taps) for taps, fit in self.sets.items()}
        found["layered"] = pixels.extractor(self.layered.matrix, self.whole)
        parts = self.layered.matrix.split([tap.channels for tap in pixels.taps])
        return found | {f"layered_{i}": pixels.extractor(p, [i]) for i, p in enumerate(parts)}

    def report(self, pixels: Pixels, found: Mapping[str, np.ndarray]) -> dict:
        """Scores of every fit on the test split."""

        def facts(taps: TapSet, fit: Choice | None = None) -> dict:
            kept, fit = [pixels.taps[i] for i in taps], fit or self.sets[taps]
            return {
                "taps": [tap.name for tap in kept],
                "channels": sum(tap.channels for tap in kept),
                "mb": round(sum(map(megabytes, kept)), 4),
                "l2": fit.l2,
                "validation_pixels_miou": round(100 * fit.miou, 3),
            }

        whole = _name(self.whole)
        return {
            "all": facts(self.whole) | _scores(found[whole]),
            "layered": facts(self.whole, self.layered) | _scores(found["layered"]),
            "taps": [
                facts((i,))
                | {"resolution": tap.resolution}
                | {"alone": _scores(found[_name((i,))])}
                | {"layered": _scores(found[f"layered_{i}"])}
                for i, tap in enumerate(pixels.taps)
            ],
            "resolutions": [
                facts(taps) | {"resolution": px} | _scores(found[_name(taps)])
                for px, taps in self.resolutions.items()
            ],
            "nested": [
                facts(taps)
                | _scores(found[_name(taps)])
                | {"minus_all": _gaps(found[_name(taps)], found[whole])}
                for taps in self.nested
            ],
        }


def _name(taps: TapSet) -> str:
    return "_".join(map(str, ("taps", *taps)))


def megabytes(tap: Tap) -> float:
    """A sample's map at float16."""
    return 2 * tap.channels * tap.resolution**2 / 1e6


def fit_all(pixels: Pixels, settings: Settings) -> Fits:
    """All taps, eq (8), each tap, each resolution, and nested sets of a few taps."""
    how, everything = (settings.l2, settings.iterations), range(len(pixels.taps))
    resolutions: dict[int, TapSet] = {}
    for i, tap in enumerate(pixels.taps):
        resolutions[tap.resolution] = (*resolutions.get(tap.resolution, ()), i)
    wanted = {tuple(everything), *((i,) for i in everything), *resolutions.values()}
    say(f"fitting {len(pixels.data.x)} pixels: eq (8), and {len(wanted)} sets of taps")
    layered = tap_fits.fit_layered(pixels, settings.layer_weight, *how)
    sets = {taps: tap_fits.fit_taps(pixels, taps, *how) for taps in sorted(wanted)}

    say(f"selecting up to {settings.greedy_taps} taps")
    thinned = pixels.thinned(THINNED)

    def score(taps: TapSet) -> float:
        return sets[taps].miou if len(taps) == 1 else tap_fits.fit_taps(thinned, taps, *how).miou

    nested = geometry.greedy(everything, score, settings.greedy_taps)
    sets |= {t: tap_fits.fit_taps(pixels, t, *how) for t in nested if t not in sets}
    return Fits(layered, sets, resolutions, nested)


def _resolutions(extractor: LSE) -> tuple[int, ...]:
    """Resolutions that are read: neighbors in a stack that read the same are scored at once."""
    pairs = zip(extractor.taps, extractor.weights, strict=True)
    return tuple(sorted({tap.resolution for tap, weight in pairs if bool(weight.any())}))


# Scores of confusion matrices [sample, class, class] on the test split.


def _summary(confusion: np.ndarray, classes: Sequence[str]) -> dict:
    return summary(PixelCounts.of(confusion), classes)


def _scores(confusion: np.ndarray) -> dict:
    pair, found = intersection_union(confusion), {}
    for name, score in PROTOCOLS.items():
        low, high = miou_interval(*pair, name)
        found[name] = percent(score(*pair).mean, low, high)
    return found


def _of(confusion: np.ndarray, reference: np.ndarray) -> dict:
    """mIoU in percent of the reference's, with the interval over images resampled together."""
    pairs, found = [intersection_union(c) for c in (confusion, reference)], {}
    for name, score in PROTOCOLS.items():
        a, b = resampled_means(pairs, name)
        low, high = percentiles(a / b)
        found[name] = percent(score(*pairs[0]).mean / score(*pairs[1]).mean, low, high)
    return found


def _gaps(first: np.ndarray, second: np.ndarray) -> dict:
    """Difference of mIoU in points, with its paired interval."""
    pairs, found = [intersection_union(c) for c in (first, second)], {}
    for name, score in PROTOCOLS.items():
        low, high = paired_interval(*pairs, name)
        found[name] = percent(score(*pairs[0]).mean - score(*pairs[1]).mean, low, high)
    return found


def claims(report: Mapping, fits: Fits, found: Mapping[str, np.ndarray]) -> dict:
    """What the paper says of its figures 4, 9 and 10, measured; `held` by the rule of each.

    The richest tap is chosen on validation pixels, so its score on test samples is honest.
    """
    protocol, taps = "miou_per_image", report["taps"]
    segment = report["centers"]["raw"]["of_lse"][protocol]
    own = report["similarity"]["raw"]["own_is_maximum"]
    best = max(range(len(taps)), key=lambda i: fits.sets[i,].miou)
    end = max((0, len(taps) - 1), key=lambda i: taps[i]["layered"][protocol]["mean"])
    gap = _gaps(found[f"layered_{best}"], found[f"layered_{end}"])[protocol]
    inside = taps[0]["resolution"] < taps[best]["resolution"] < taps[-1]["resolution"]
    return {
        "centers_segment": segment | {"held": segment["low"] >= ENOUGH, "enough": ENOUGH},
        "own_is_maximum": own | {"held": own["mean"] == 100.0},
        "middle_taps_richest": gap
        | {"held": bool(inside and gap["low"] > 0), "tap": taps[best]["taps"][0]}
        | {"end": taps[end]["taps"][0]},
    }


def _detectors(study: Study, train: Columns, held: Columns) -> dict:
    """The best single channel of each class: its tap, its index there, and its IoU."""
    drawn = []
    for columns in (train, held):
        step = -(-len(columns.x) // DETECTOR_PIXELS)
        parts = (values[::step] for values in (columns.x, columns.y, columns.weights))
        drawn.append(geometry.Drawn(*_arrays(*parts)))
    found = geometry.detectors(*drawn, len(study.classes), SHARES)
    ends = np.cumsum([tap.channels for tap in study.taps])
    report = {}
    for name, best in zip(study.classes, found, strict=True):
        if best is not None:
            i = int(np.searchsorted(ends, best.channel, side="right"))
            report[name] = {
                "tap": study.taps[i].name,
                "channel": int(best.channel - ends[i] + study.taps[i].channels),
                "on": best.share,
                "iou": round(100 * best.iou, 3),
            }
    return report


def _alignment(
    study: Study, pixels: Pixels, lse: LSE, centers: Mapping[str, np.ndarray]
) -> dict[str, dict]:
    """Cosines with the class centers of the LSE's weights, and of their patterns: own, next other.

    Adding one vector to all classes' weights changes no mask, so the mean over classes is taken
    off the weights and off the centers first. The pattern of weights t is C t, with the features'
    second moments C: what the features do where the logit is high (Haufe et al., NeuroImage 2014).
    """
    data = pixels.data
    moments = solvers.moments(data, seed=0) if pixels.moments is None else pixels.moments
    raw = torch.cat([w.detach() for w in lse.weights], 1).to(data.scale.device)
    scaled = raw * data.scale
    compared = {
        "raw": (raw, "raw"),
        "scaled": (scaled, "scaled"),
        "pattern": (scaled @ moments, "scaled"),
    }
    found = {}
    for kind, (vectors, which) in compared.items():
        values, means = vectors.cpu().numpy(), centers[which]
        table = geometry.cosines(values - values.mean(0), means - means.mean(0))
        others = np.where(np.eye(len(table), dtype=bool), -np.inf, table)
        found[kind] = {
            name: {
                "own": round(float(table[k, k]), 4),
                "nearest_other": study.classes[int(others[k].argmax())],
                "other": round(float(others[k].max()), 4),
            }
            for k, name in enumerate(study.classes)
        }
    return found


def _pictures(
    study: Study, extractors: Mapping[str, LSE], settings: Settings
) -> dict[str, np.ndarray]:
    """Masks [shown, size, size] by extractor for a few random test samples, and their rows."""
    total = Group(study.masks).splits["test"]
    rows = np.sort(np.random.default_rng(settings.seed).permutation(total)[: settings.shown])
    size = Group(study.masks).label_size
    stacked = stack(list(extractors.values())).to(study.source.device)
    drawn = []
    for row in rows.tolist():
        features, _ = next(stream(study.source, "test", row, row + 1, study.taps))
        drawn.append([m[0] for m in stacked_masks(stacked, len(study.classes), features, size)])
    masks = dict(zip(extractors, np.stack(drawn, 1), strict=True))
    return {f"{name}/masks": value for name, value in masks.items()} | {"test/rows": rows}
