"""Options of figures."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shown:
    """Which test samples figures show."""

    samples: int  # test samples in the figures
    seed: int  # seed of the draw of these samples
