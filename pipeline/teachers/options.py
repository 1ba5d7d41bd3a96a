"""Options of the training of a teacher."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """What determines the weights, beside the data."""

    architecture: str  # unet or feature_pyramid
    train: int  # pairs of the training split
    validation: int  # pairs of the validation split
    test: int  # pairs of the test split
    train_part: str  # training pairs used: all, or the first or second half
    steps: int  # steps of AdamW
    batch: int  # pairs per step
    learning_rate: float  # the peak of its schedule
    seed: int  # seed of the weights and of every step
    polish: int = 0  # steps of a second phase: half the augmentation, a quarter of the rate

    @property
    def all_steps(self) -> int:
        """Steps of both phases."""
        return self.steps + self.polish
