"""The extractors that a run can name: network, settings, taps, and what they are called in print.

Reads no torch, so tables and figures can use it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.runtime.errors import choose


@dataclass(frozen=True)
class Variant:
    """What an extractor's name stands for in params.yaml."""

    kind: str  # a key of pipeline.extractors.networks.KINDS
    title: str  # in tables and figures
    nonlinear: bool  # True: trained on windows; False: a convex problem, solved as one
    settings: Mapping[str, object] = field(default_factory=dict)  # of the network's constructor
    finest: int = 1  # LSE: taps up to the image's resolution / finest

    @property
    def ablation(self) -> bool:
        """Whether it differs from the paper's extractor of its kind."""
        return bool(self.settings) or self.finest > 1


# The order is that of rows in tables.
EXTRACTORS = {
    # Eq (1): all taps, no bias.
    "lse": Variant("LSE", "LSE", nonlinear=False),
    "lse_biased": Variant("LSE", "LSE with a bias", nonlinear=False, settings={"bias": True}),
    # On a 1024 px generator: taps up to 128 px.
    "lse_coarse": Variant("LSE", "LSE, coarse taps", nonlinear=False, finest=8),
    "nse1": Variant("NSE1", "NSE-1", nonlinear=True),
    # Kernels as figure 7 draws them; the reference has 1x1.
    "nse1_3x3": Variant("NSE1", "NSE-1, 3x3", nonlinear=True, settings={"kernel": 3}),
    "nse2": Variant("NSE2", "NSE-2", nonlinear=True),
}


def variant(name: str) -> Variant:
    """Look up an extractor; InputError lists all names."""
    return EXTRACTORS[choose("extractor", name, EXTRACTORS)]


def title_of(name: str) -> str:
    """The name in print; an unknown name stands for itself."""
    return EXTRACTORS[name].title if name in EXTRACTORS else name


def is_nonlinear(name: str) -> bool:
    """Whether a name is that of a nonlinear extractor; False for an unknown one."""
    return name in EXTRACTORS and EXTRACTORS[name].nonlinear
