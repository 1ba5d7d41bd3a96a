"""The extractors that a run can name: their networks, settings, labels and taps."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.runtime.errors import choose


@dataclass(frozen=True)
class Variant:
    """What an extractor's name stands for in params.yaml."""

    network: str  # a key of pipeline.extractors.networks.NETWORKS
    label: str  # in tables and figures
    linear: bool  # whether a convex solver can fit it
    settings: Mapping[str, object] = field(default_factory=dict)  # of the network's constructor
    finest: int = 1  # taps up to the image's resolution / finest


# The order is that of rows in tables.
EXTRACTORS = {
    "lse": Variant("LSE", "LSE", linear=True),  # eq (1): all taps, no bias
    "lse_biased": Variant("LSE", "LSE with a bias", linear=True, settings={"bias": True}),
    # On a 1024 px generator: taps up to 128 px.
    "lse_coarse": Variant("LSE", "LSE, coarse taps", linear=True, finest=8),
    "nse1": Variant("NSE1", "NSE-1", linear=False),
    # Kernels as in figure 7; the reference implementation has 1x1.
    "nse1_3x3": Variant("NSE1", "NSE-1, 3x3", linear=False, settings={"kernel": 3}),
    "nse2": Variant("NSE2", "NSE-2", linear=False),
}


def variant(name: str) -> Variant:
    """Look up an extractor; InputError lists all names."""
    return EXTRACTORS[choose("extractor", name, EXTRACTORS)]


def label(name: str) -> str:
    """The name in print; an unknown name stands for itself."""
    return EXTRACTORS[name].label if name in EXTRACTORS else name
