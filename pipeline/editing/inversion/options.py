"""Options of inversion: how the latents of a photograph are searched for."""

import math
from dataclasses import dataclass

from pipeline.runtime.errors import InputError


@dataclass(frozen=True)
class Inversion:
    """How latents move, and what is compared with the photo."""

    steps: int = 100  # steps of Adam
    # Peak rate of Adam, in standard deviations of w: rising for `warm_up` steps, then falling.
    learning_rate: float = 0.06
    warm_up: int = 10  # steps up to the peak rate
    last_rate: float = 0.002  # rate of the last step, to which a cosine leads
    pixels: float = 2.0  # weight of the mean squared difference of pixels
    blurred: float = 2.0  # weight of the same of the means of 4x4 pixels
    prior: float = 0.01  # weight of the mean square of latents, in standard deviations of w
    spread: float = 0.02  # weight of the variance of latents over layers
    samples: int = 3000  # random w that their mean and covariance are taken from
    seed: int = 0  # seed of these

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise InputError(f"samples {self.samples}", "at least 2", "change samples")
        if self.warm_up < 0:
            raise InputError(f"warm_up {self.warm_up}", "0 or more", "change warm_up")

    def rate(self, step: int) -> float:
        """Adam's rate of a step: linear up to the peak, then half a cosine down."""
        if step < self.warm_up:
            return self.learning_rate * (step + 1) / self.warm_up
        down = (step - self.warm_up) / max(1, self.steps - 1 - self.warm_up)
        share = (1 + math.cos(math.pi * min(1.0, down))) / 2
        return self.last_rate + (self.learning_rate - self.last_rate) * share


@dataclass(frozen=True)
class PhotoStudy:
    """Which photos are measured, and by which few-shot extractors."""

    rule: Inversion
    test: int = 100  # photos: the last ones by sorted name
    label_size: int = 256  # side of masks, px
    # Annotated samples of few-shot LSEs, fits of sweep_fewshot; repeat for more.
    sweep_shots: tuple[int, ...] = (1, 4, 8, 16)
    repeats: int = 5  # fits of each number of shots, each on its own samples of the pool
    fewshot_seed: int = 0  # seed of the draws, as in sweep_fewshot
