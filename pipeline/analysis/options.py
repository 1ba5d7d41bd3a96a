"""Options of the controls, of appearance's study and of category selection."""

from dataclasses import dataclass

from pipeline.extractors.options import AppearanceFit


@dataclass(frozen=True)
class Settings:
    """How a control is fitted: as the LSE, see fit_lse."""

    # L2 strength, in features scaled to unit power; validation chooses among several.
    l2: tuple[float, ...]
    iterations: int  # L-BFGS iterations; the best on the validation split is kept
    pixel_budget: int  # pixels of a fit in all; bounds its memory
    # Control: rgb, fourier, fourier_rgb, random_conv, reinitialized; repeat for more.
    controls: tuple[str, ...]
    seed: int = 0  # seed of random features and weights


@dataclass(frozen=True)
class CategoryRule:
    """Which classes of the full label list are kept."""

    threshold: float  # keep a class that any extractor predicts with an IoU above this, percent
    protocol: str  # miou_per_image (the paper's) or miou_dataset


@dataclass(frozen=True)
class AppearanceStudy:
    """How linear appearance is fitted, tested and shown."""

    fit: AppearanceFit
    test_samples: int = 24  # test samples at each truncation
    shown: int = 4  # test samples in the figure
