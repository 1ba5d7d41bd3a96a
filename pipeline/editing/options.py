"""Options of the tools that start from one sample."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Start:
    """The sample that a tool starts from: a row of latents, or drawn from a seed."""

    latents: Path | None = None  # seeds, z and ws per split (zarr); none: z is drawn from `seed`
    split: str = "test"  # split of the sample
    row: int = 0  # row of the sample in its split
    seed: int = 0  # seed of the sample, if there are no latents
