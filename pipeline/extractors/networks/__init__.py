"""Semantic extractors: feature maps of several taps in, a mask out (Xu & Zheng, sec. 2).

LSE is eq (1), the linear one; NSE-1 and NSE-2 are the paper's nonlinear ones. They are used alike.
"""

from pipeline.extractors.networks.base import (
    Extractor,
    Window,
    interpolation,
    interpolation_span,
)
from pipeline.extractors.networks.files import KINDS, build, load_extractor, save_extractor
from pipeline.extractors.networks.lse import LSE
from pipeline.extractors.networks.nse import NSE1, NSE2

__all__ = [
    "KINDS",
    "LSE",
    "NSE1",
    "NSE2",
    "Extractor",
    "Window",
    "build",
    "interpolation",
    "interpolation_span",
    "load_extractor",
    "save_extractor",
]
