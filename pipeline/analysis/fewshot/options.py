"""Options of the few-shot fits: how each is solved, and which are made."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """How every few-shot problem is solved, whatever its shots: L-BFGS from zero, no whitening."""

    power: float  # each channel is divided by its root mean square ** power
    l2: float  # L2 strength, in features scaled to unit power
    iterations: int  # L-BFGS iterations
    pixels_per_sample: int  # weighted pixels of a full mask; strokes are used whole


@dataclass(frozen=True)
class Draws:
    """Which samples the fits of one number of shots read."""

    shots: int  # annotated samples
    repeats: int  # fits, each on its own samples of the pool
    seed: int  # seed of the draws from the pool
    selection: str = "random"  # samples to annotate: random, diverse, uncertain or committee


@dataclass(frozen=True)
class Sweep:
    """What to compare: shots, ways to select samples, and strokes."""

    sweep_shots: tuple[int, ...]  # annotated samples of the fits; repeat for more
    repeats: int  # fits of each number of shots, each on its own samples of the pool
    # Samples to annotate: random, diverse, uncertain or committee, each on the same random halves
    # of the pool; repeat for more.
    selections: tuple[str, ...]
    stroke_budgets: tuple[int, ...]  # labeled stroke pixels in all; repeat for more
    stroke_images: tuple[int, ...]  # samples that a stroke budget is spread over; repeat for more
    seed: int  # seed of the draws from the pool
