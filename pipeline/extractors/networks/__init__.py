"""Semantic extractors: feature maps of several taps in, a mask out (Xu & Zheng, sec. 2)."""

from pipeline.extractors.networks.base import (
    Extractor,
    Window,
    interpolation,
    interpolation_span,
)
from pipeline.extractors.networks.files import NETWORKS, build, load_extractor, save_extractor
from pipeline.extractors.networks.lse import LSE
from pipeline.extractors.networks.nse import NSE1, NSE2

__all__ = [
    "LSE",
    "NETWORKS",
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
