"""Label spaces: the 19 classes of CelebAMask-HQ, and 15 merged ones (Xu & Zheng, CVPR 2021)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import InputError, choose

DROPPED = -1


@dataclass(frozen=True)
class LabelSpace:
    """Class names, and where each of the network's classes goes: merge[network class] = class.

    A network class that goes to DROPPED takes no part in the argmax.
    """

    name: str
    classes: tuple[str, ...]
    merge: tuple[int, ...]

    def merge_ids(self, masks: np.ndarray) -> np.ndarray:
        """Map network ids [...] uint8 to ids of this space, which must drop none."""
        return np.asarray(self.merge, np.uint8)[masks]

    def keep(self, names: Sequence[str]) -> "LabelSpace":
        """The space of class 0 and `names`: category selection (appendix E of the paper)."""
        if unknown := [name for name in names if name not in self.classes]:
            raise InputError(
                f"class {unknown[0]!r} to keep",
                f"classes of {self.name}: {', '.join(self.classes)}",
                "select the categories again",
            )
        kept = (self.classes[0], *(c for c in self.classes[1:] if c in names))
        ids = {c: i for i, c in enumerate(kept)}
        merge = tuple(ids.get(self.classes[i], DROPPED) for i in self.merge)
        return LabelSpace(f"{self.name}, selected", kept, merge)


# fmt: off
CELEBAMASK19 = (
    "bg", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear",
    "mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)
FACE15 = (
    "bg", "skin", "nose", "eye_g", "eye", "brow", "ear", "mouth", "u_lip", "l_lip",
    "hair", "hat", "ear_r", "neck", "cloth",
)
# fmt: on

# What a horizontal flip does to the 19 ids: left and right eye, brow and ear change places.
FLIP19 = (0, 1, 2, 3, 5, 4, 7, 6, 9, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18)

LABEL_SPACES = {
    "celebamask19": LabelSpace("celebamask19", CELEBAMASK19, tuple(range(19))),
    "celebamask15": LabelSpace(
        "celebamask15",
        FACE15,
        (0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 7, 8, 9, 10, 11, 12, 13, 13, 14),
    ),
}


def label_space(name: str) -> LabelSpace:
    """Look a label space up by name."""
    return LABEL_SPACES[choose("label space", name, LABEL_SPACES)]
