"""How classes lie in a generator's features: centers, cosines, and what each tap knows alone.

Xu & Zheng (CVPR 2021): figures 4, 9 and 10, algorithm 1 and eq (8). All extractors here are linear,
class centers too: dividing a pixel by its norm does not change which center is the nearest.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from pipeline.analysis.geometry import centers as geometry
from pipeline.analysis.geometry import tap_fits
from pipeline.analysis.geometry.fair_sampling import SCALES, fair_similarity
from pipeline.analysis.geometry.fits import Fits, fit_all
from pipeline.analysis.geometry.options import Settings
from pipeline.analysis.geometry.scores import gaps, overall, relative
from pipeline.analysis.geometry.settings import check
from pipeline.analysis.geometry.tap_fits import Pixels
from pipeline.data.arrays import Group
from pipeline.data.features import stream
from pipeline.data.inputs import Study
from pipeline.data.stores import Store
from pipeline.extractors import problems
from pipeline.extractors.fitting import Columns
from pipeline.extractors.networks import LSE, Extractor
from pipeline.extractors.prediction import confusions, stack, stacked_masks

SHARES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)  # of pixels that a single channel is on for
DETECTOR_PIXELS = 4096  # at most, for single channels
SHOWN = ("lse", "centers", "layered")  # in pictures, by how their names begin
ENOUGH = 50.0  # %: centers `segment` if they reach this share of the LSE's mIoU


def measure_geometry(
    study: Study, store: Store, extractor: Extractor, settings: Settings, workers: int
) -> tuple[dict, dict[str, np.ndarray]]:
    """Fit, score and compare; return the report, and masks for pictures with their rows."""
    lse = check(study, extractor, settings)
    train, held = tap_fits.read(store, settings.pixel_budget, study.source.device)
    detected = _detectors(study, train, held)
    sums = {"raw": class_sums(train, len(study.classes))}
    pixels = tap_fits.prepare(train, held, store)
    scaled = Columns(pixels.data.columns, pixels.data.y, pixels.data.weights)
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
        "lse": overall(found["lse"], study.classes),
        "centers": {
            kind: overall(found[f"centers_{kind}"], study.classes)
            | {"of_lse": relative(found[f"centers_{kind}"], found["lse"])}
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


def class_sums(columns: Columns, num_classes: int) -> np.ndarray:
    """Weighted sums [class, channel] of unit hypercolumns, block by block."""
    total = np.zeros((num_classes, columns.x.shape[1]))
    parts = (values.split(problems.ROWS) for values in (columns.x, columns.y, columns.weights))
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


def _resolutions(extractor: LSE) -> tuple[int, ...]:
    """Resolutions that are read: neighbors in a stack that read the same are scored at once."""
    pairs = zip(extractor.taps, extractor.weights, strict=True)
    return tuple(sorted({tap.resolution for tap, weight in pairs if bool(weight.any())}))


def claims(report: Mapping, fits: Fits, found: Mapping[str, np.ndarray]) -> dict:
    """What the paper says of its figures 4, 9 and 10, measured; `held` by the rule of each.

    The richest tap is chosen on validation pixels, so its score on test samples is honest.
    """
    protocol, taps = "miou_per_image", report["taps"]
    segment = report["centers"]["raw"]["of_lse"][protocol]
    own = report["similarity"]["raw"]["own_is_maximum"]
    best = max(range(len(taps)), key=lambda i: fits.sets[i,].miou)
    end = max((0, len(taps) - 1), key=lambda i: taps[i]["layered"][protocol]["mean"])
    gap = gaps(found[f"layered_{best}"], found[f"layered_{end}"])[protocol]
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
    found = geometry.detectors(_drawn(train), _drawn(held), len(study.classes), SHARES)
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


def _drawn(columns: Columns) -> geometry.Drawn:
    """At most DETECTOR_PIXELS of the pixels, evenly spread."""
    step = -(-len(columns.x) // DETECTOR_PIXELS)
    parts = (values[::step] for values in (columns.x, columns.y, columns.weights))
    return geometry.Drawn(*_arrays(*parts))


def _alignment(
    study: Study, pixels: Pixels, lse: LSE, centers: Mapping[str, np.ndarray]
) -> dict[str, dict]:
    """Cosines with the class centers of the LSE's weights, and of their patterns: own, next other.

    Adding one vector to all classes' weights changes no mask, so the mean over classes is taken
    off the weights and off the centers first. The pattern of weights t is C t, with the features'
    second moments C: what the features do where the logit is high (Haufe et al., NeuroImage 2014).
    """
    data = pixels.data
    moments = problems.moments(data, seed=0) if pixels.moments is None else pixels.moments
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
