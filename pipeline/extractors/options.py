"""Options of the fits of extractors: the linear ones, and the training of the nonlinear ones."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LinearFit:
    """How an LSE is fitted."""

    solver: str  # lbfgs (convex, on sampled pixels) or adam (the paper's recipe)
    # L2 strength, in features scaled to unit power; the validation split chooses among several.
    l2: tuple[float, ...]
    iterations: int  # L-BFGS iterations; the best on the validation split is kept
    pixel_budget: int  # pixels of a fit in all; bounds its memory
    epochs: float  # epochs of solver adam, 1,024 samples each (the paper: 50)


@dataclass(frozen=True)
class Training:
    """How NSEs are trained."""

    steps: int  # steps of Adam
    batch: int  # windows of the cached taps per step
    window: int  # side of a window of the masks, label px
    looks: int  # at the validation samples while training; the best one's weights are kept
    patience: int  # looks without a gain after which training stops
    nse2_width: int  # channels of a map of NSE-2 at most; 0: as many as its tap (the paper's)
    # Peak rate of an extractor: nse1=0.01; of one study: ffhq/nse1=0.001; repeat for more.
    learning_rates: tuple[str, ...]


@dataclass(frozen=True)
class AppearanceFit:
    """How the linear reading of an image from feature maps is fitted."""

    max_tap_resolution: int = 128  # px; finer taps are not read, and the reading is as large
    samples: int = 256  # training samples that pixels are drawn from
    pixels: int = 150  # pixels of each sample
    held_samples: int = 24  # validation samples that choose the strength
    psis: tuple[float, ...] = (0.5, 0.7, 1.0)  # truncations of the samples, in turn
    # Ridge penalties, relative to each channel's mean square; the validation split chooses.
    strengths: tuple[float, ...] = (0.1, 0.03, 0.01, 0.003, 0.001)
    seed: int = 0  # of the pixels
