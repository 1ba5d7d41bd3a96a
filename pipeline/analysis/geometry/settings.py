"""What a study of geometry asks of its sizes and inputs."""

from pipeline.analysis.geometry.options import Settings
from pipeline.data.arrays import Group
from pipeline.data.inputs import Study
from pipeline.extractors.networks import LSE, Extractor
from pipeline.runtime.errors import InputError


def check(study: Study, lse: Extractor, settings: Settings) -> LSE:
    """The LSE; InputError if the sizes, the extractor or the samples do not fit the study."""
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
    return lse
