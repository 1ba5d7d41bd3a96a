"""Options of Semantic-Conditional Sampling: how to search, for which targets, by which LSEs."""

from dataclasses import dataclass, field

from pipeline.analysis.fewshot.options import Rule
from pipeline.runtime.errors import InputError


@dataclass(frozen=True)
class Search:
    """How a latent is searched for."""

    # Latents drawn for each sample, of which the best begins the search; the paper: 10 for faces,
    # 100 for scenes.
    candidates: int = 10
    steps: int = 50  # steps of Adam
    # Learning rate of Adam, the best of three here; the reference: 0.01, the paper: 0.001.
    learning_rate: float = 0.1
    seed: int = 0  # seed of the candidates, and of the samples whose masks are the targets
    truncation_psi: float = 1.0  # w = w_avg + psi (w - w_avg); 1, as in the paper: none

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise InputError(f"candidates {self.candidates}", "at least 1", "change candidates")


@dataclass(frozen=True, kw_only=True)
class FewShot:
    """Which few-shot extractors take part; they are fitted on the taps that the LSE reads."""

    shots: int  # annotated samples
    # Annotated samples of more few-shot LSEs, beside those of `shots`; repeat for more.
    scs_shots: tuple[int, ...] = (8,)
    refits: int = 1  # repeats of each few-shot LSE that sample
    repeats: int  # disjoint draws from the pool, of which the first `refits` are taken
    fewshot_seed: int  # seed of the draws, as in fit_fewshot
    rule: Rule

    @property
    def all_shots(self) -> tuple[int, ...]:
        """Numbers of shots, each once, in order."""
        return tuple(sorted({self.shots, *self.scs_shots}))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to sample, by whom, and how."""

    targets: int = 2  # target masks to sample for
    target_psi: float = 0.5  # truncation of the samples whose masks are the targets
    samples: int = 2  # samples of each target
    # Samples of each target with the teacher in the loop, which costs the most.
    teacher_samples: int = 1
    rates: tuple[float, ...]  # learning rates whose course is shown; repeat for more
    rate_targets: int = 1  # targets that show the courses, a sample each
    search: Search = field(default_factory=Search)
    few: FewShot

    def __post_init__(self) -> None:
        if self.teacher_samples < 1:
            raise InputError(
                f"teacher_samples {self.teacher_samples}",
                "at least 1: the teacher is what the others are compared with",
                "change teacher_samples",
            )

    @property
    def looks(self) -> tuple[int, ...]:
        """Steps of the course that are shown."""
        steps = self.search.steps
        return tuple(sorted({0, steps // 5, steps // 2, steps}))
