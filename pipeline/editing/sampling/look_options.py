"""Options of the look that conditional samples should have."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LookChoice:
    """An image or a sample: the mean colors of its classes are what samples should have."""

    # Image (PNG, JPEG) with its mask beside it, NAME_mask.png, or a row of `latents`; none: any.
    look: str | None = None
    latents: Path | None = None  # seeds, z and ws per split (zarr), or of photos: for a row
    split: str = "test"  # split of the row
    # Linear reading of the generator's images (safetensors), which a look needs.
    appearance: Path | None = None
    look_weight: float = 3.0  # of the squared distance of colors beside the mask's cross-entropy
