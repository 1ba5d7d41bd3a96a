"""Options of the training of teachers and of other segmentation networks."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long a network is trained, and how."""

    steps: int  # steps of AdamW
    batch: int  # pairs per step
    learning_rate: float  # the peak of its schedule
    seed: int  # seed of the weights and of every step
    polish: int = 0  # steps of a second phase: half the augmentation, a quarter of the rate

    @property
    def all_steps(self) -> int:
        """Steps of both phases."""
        return self.steps + self.polish


@dataclass(frozen=True, kw_only=True)
class Recipe(Schedule):
    """What determines the weights of a teacher, beside the data."""

    architecture: str  # unet or feature_pyramid
    train: int  # pairs of the training split
    validation: int  # pairs of the validation split
    test: int  # pairs of the test split
    train_part: str  # training pairs used: all, or the first or second half


@dataclass(frozen=True)
class Segmenter:
    """How a network is trained on a data set, with labeled photos or without."""

    recipe: str = "auto"  # cpu (minutes), gpu, or auto: by the device
    architecture: str = "unet"  # unet or feature_pyramid
    steps: int | None = None  # steps of AdamW; none: the recipe's, and so below
    polish: int | None = None  # steps of a second phase
    batch: int | None = None  # pairs per step
    learning_rate: float | None = None  # the peak of its schedule
    seed: int = 0  # seed of the weights and of every step
    validation: int = 50  # samples, the last by name, that are held out and scored
    photo_share: float = 0.25  # of each batch, where there are photos
    polish_share: float = 1.0  # of each batch of the second phase
    # A pixel counts (1 - uncertainty) to the power of this; 0: all alike.
    doubt: float = 1.0
