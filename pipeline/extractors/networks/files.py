"""Build, save and load extractors."""

from collections.abc import Sequence
from pathlib import Path

import torch

from pipeline.extractors.networks.base import Extractor
from pipeline.extractors.networks.lse import LSE
from pipeline.extractors.networks.nse import NONLINEAR
from pipeline.extractors.registry import variant
from pipeline.generators.taps import Tap
from pipeline.runtime.errors import InputError
from pipeline.runtime.weights import read_safetensors, write_safetensors

KINDS: dict[str, type[Extractor]] = {"LSE": LSE} | NONLINEAR


def save_extractor(path: str | Path, extractor: Extractor, facts: dict) -> None:
    """Write an extractor with its classes, taps and `facts` (how it was fitted)."""
    write_safetensors(
        path,
        {name: value.detach().cpu() for name, value in extractor.tensors().items()},
        facts
        | {
            "type": type(extractor).__name__,
            "settings": extractor.settings,
            "classes": extractor.classes,
            "taps": [vars(tap) for tap in extractor.taps],
            "align_corners": extractor.align_corners,
        },
    )


def load_extractor(path: str | Path, device: str | torch.device = "cpu") -> Extractor:
    """Load what save_extractor wrote, frozen."""
    tensors, facts = read_safetensors(path)
    if facts.get("type") not in KINDS:
        raise InputError(
            f"{path} of type {facts.get('type')!r}",
            f"an extractor of type {', '.join(KINDS)}",
            "name a file of data/extractors/",
        )
    taps = [Tap(**tap) for tap in facts["taps"]]
    settings = facts.get("settings", {"bias": "bias" in tensors})  # older files: an LSE's
    extractor = KINDS[facts["type"]](
        facts["classes"], taps, **settings, align_corners=facts["align_corners"]
    )
    extractor.restore(tensors)
    return extractor.eval().requires_grad_(False).to(device)


def build(
    name: str,
    classes: Sequence[str],
    taps: Sequence[Tap],
    nse2_width: int,  # channels of NSE-2 at most; 0: the paper's, as many as each tap has
    align_corners: bool,
) -> Extractor:
    """An untrained extractor called `name`, with PyTorch's default weights."""
    form = variant(name)
    settings = dict(form.settings)
    if form.kind == "NSE2":
        settings["width"] = nse2_width or None
    return KINDS[form.kind](classes, taps, **settings, align_corners=align_corners)
