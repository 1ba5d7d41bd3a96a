"""The methods of local transfer: what each asks for, and what it is called in print.

Reads no torch, so tables and figures can use it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """What a method's name stands for; neither query nor finest: it works on the image's pixels."""

    title: str  # in tables and figures
    strengths: str = "once"  # which list of strengths it takes; once: 1.0 alone
    query: str | None = None  # of style scales: one of `method.queries`
    lse: bool = False  # whether its contributions are those of the LSE's masks, not of clusters
    finest: int | None = None  # px: feature maps up to here are blended
    control: bool = False  # whether the generator with redrawn weights is edited, too


# The order is that of rows in tables.
METHODS = {
    "sequential": Method("sequential", "epsilons", query="sequential", control=True),
    "sequential_lse": Method("sequential, LSE masks", "epsilons", query="sequential", lse=True),
    "simultaneous": Method("simultaneous", "lambdas", query="simultaneous", control=True),
    "global": Method("global", "interpolations", query="global", control=True),
    # Blending and Poisson need one strength: their errors inside and outside grow alike.
    "blend_32": Method("features to 32 px", finest=32),
    "blend_64": Method("features to 64 px", finest=64),
    "poisson": Method("Poisson"),
}
