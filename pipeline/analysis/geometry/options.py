"""Options of the study of geometry."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes of the study."""

    pixel_budget: int = 32768  # training pixels of all fits and of the class centers
    # L2 strength, in features scaled to unit power; validation chooses among several.
    l2: tuple[float, ...]
    iterations: int = 12  # L-BFGS iterations of every fit
    layer_weight: float  # weight of each tap's own loss beside that of their sum (alpha of eq 8)
    greedy_taps: int  # size of the largest set of taps that is selected tap by tap
    fair_pixels: int = 200  # pixels of a class that fair sampling draws from one image (T1)
    fair_pool: int = 4000  # pixels of a class that fair sampling draws in all (T2)
    fair_images: int = 28  # images of fair sampling, at most: a rare class may never fill
    shown: int  # test samples in the figures
    seed: int  # seed of fair sampling and of the samples in the figures
