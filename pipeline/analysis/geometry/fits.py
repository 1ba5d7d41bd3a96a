"""Fits of a study of geometry: eq (8), each tap alone, each resolution, and nested sets of taps."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.analysis.geometry import centers as geometry
from pipeline.analysis.geometry import tap_fits
from pipeline.analysis.geometry.options import Settings
from pipeline.analysis.geometry.scores import by_protocol, gaps
from pipeline.analysis.geometry.tap_fits import Pixels
from pipeline.extractors.fitting import Choice
from pipeline.extractors.networks import LSE
from pipeline.generators.taps import Tap
from pipeline.runtime.progress import say

THINNED = 4  # greedy selection reads every fourth pixel

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
        found = {
            name_of(taps): pixels.extractor(fit.matrix, taps) for taps, fit in self.sets.items()
        }
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

        whole = name_of(self.whole)
        return {
            "all": facts(self.whole) | by_protocol(found[whole]),
            "layered": facts(self.whole, self.layered) | by_protocol(found["layered"]),
            "taps": [
                facts((i,))
                | {"resolution": tap.resolution}
                | {"alone": by_protocol(found[name_of((i,))])}
                | {"layered": by_protocol(found[f"layered_{i}"])}
                for i, tap in enumerate(pixels.taps)
            ],
            "resolutions": [
                facts(taps) | {"resolution": px} | by_protocol(found[name_of(taps)])
                for px, taps in self.resolutions.items()
            ],
            "nested": [
                facts(taps)
                | by_protocol(found[name_of(taps)])
                | {"minus_all": gaps(found[name_of(taps)], found[whole])}
                for taps in self.nested
            ],
        }


def name_of(taps: TapSet) -> str:
    """Of the extractor that reads these taps."""
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
