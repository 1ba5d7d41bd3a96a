"""Label spaces: the 19 classes of CelebAMask-HQ, and 15 merged ones (Xu & Zheng, CVPR 2021)."""

from dataclasses import dataclass

import numpy as np

from pipeline.errors import choose


@dataclass(frozen=True)
class LabelSpace:
    """Class names, and where each of the network's classes goes: merge[network class] = class."""

    name: str
    classes: tuple[str, ...]
    merge: tuple[int, ...]

    def merge_ids(self, masks: np.ndarray) -> np.ndarray:
        """Map network ids [...] uint8 to ids of this space."""
        return np.asarray(self.merge, np.uint8)[masks]


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
