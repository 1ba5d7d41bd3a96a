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
