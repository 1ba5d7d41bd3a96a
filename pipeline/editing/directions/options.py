"""Options of the study of directions, and of a traversal along one."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to look for, and how closely."""

    # Layers whose weights are factorized: all, 3-8, 9-; repeat for more.
    ranges: tuple[str, ...] = ("all",)
    top: int  # directions of the largest eigenvalues to measure (the paper: 50)
    random: int = 16  # random directions of equal step, the control of every score (better: 100)
    step: float = 6.0  # how far samples move, in typical sd of w
    obvious: float  # a change is obvious from so many times the mean one of random directions on
    compared: int  # directions of each method that are compared at equal image change
    equal_lab: float  # image change at which directions are compared: mean CIELAB distance
    spread_samples: int  # w for the covariance (the paper's PCA: 500,000)
    # New samples whose masks boundaries are drawn by (the paper: 500,000).
    boundary_samples: int = 300
    boundary_share: float  # share of samples at either end of a trait that a boundary parts
    shown: int  # directions of a range described one by one
    alphas: tuple[float, ...]  # figure columns, in sd of w along the direction; repeat for more
    seed: int  # seed of random directions and of new samples


@dataclass(frozen=True)
class View:
    """Which samples are moved, and how closely they are looked at."""

    samples: int = 3  # test samples to move, from the first
    color_samples: int = 1  # samples, from the first, whose images are synthesized, for colors
    # Taps up to this many px are read for masks. 64 is half the cost of 128 on ffhq; poses agree
    # at r = 0.99.
    max_tap_resolution: int = 64
    mask_size: int = 128  # side of the masks and images that are looked at, px


@dataclass(frozen=True)
class Traversal:
    """Along which direction one sample moves, and how it is shown."""

    # RANGE/sefa/INDEX, all/pca/INDEX, all/random/INDEX or all/boundary/TRAIT.
    direction: str = "all/sefa/0"
    # Steps of a traversal, in sd of w along the direction; repeat for more.
    alphas: tuple[float, ...] = (-4.0, -2.0, 0.0, 2.0, 4.0)
    without: tuple[str, ...] = ()  # direction whose projection stays as it is; repeat for more
    absolute: bool = False  # count alphas from the hyperplane through w_avg, not from the sample
    truncation_psi: float | None = None  # w = w_avg + psi (w - w_avg); none: that of the study
    mask_size: int = 256  # side of the masks, px
