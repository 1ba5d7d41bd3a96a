"""Options of Semantic Image Editing: how latents move, what is edited, and what is a success."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """How latents move; the values are the paper's, the space the reference's."""

    space: str = "z_per_layer"  # latents that move: z, z_per_layer or w_plus
    steps: int = 50  # steps of Adam
    learning_rate: float = 0.01  # learning rate of Adam
    near: float = 1e-3  # weight of L_n, the squared distance of latents from their start
    prior: float = 1e-3  # weight of L_z, the squared norm of z; w_plus has no such prior
    truncation_psi: float = 1.0  # truncation of the sample and of every step; 1: none


@dataclass(frozen=True)
class CaseRule:
    """Which edits are made, of which samples."""

    # Edits of the study, by name; repeat for more.
    kinds: tuple[str, ...] = ("add_glasses", "add_hat", "close_mouth", "remove_hair")
    samples: int = 2  # samples of each edit: the first test samples that it applies to
    image_samples: int = 1  # samples of each edit by color and by the teacher, which need the image
    rows: int = 32  # test samples that edits may be tried on, in order
    loop_tap_resolution: int = 128  # taps up to this many px take part in edits by an LSE


@dataclass(frozen=True)
class Success:
    """When an edit counts as done, by the judge."""

    success_iou: float = 0.5  # an edit is done from this IoU of its region on, by the judge
    success_lab: float = 10.0  # an edit is done up to this CIELAB change outside its region
