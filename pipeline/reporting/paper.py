"""Numbers that the papers print: Xu & Zheng (CVPR 2021) for StyleGAN2-FFHQ, in percent; SeFa."""

from collections.abc import Collection

# Table 1, and the means of table 6's fourteen classes, which differ from it.
MIOU = {"LSE": 79.7, "NSE-1": 81.0, "NSE-2": 80.2}
MIOU_OF_TABLE_6 = {"LSE": 76.4, "NSE-1": 79.3, "NSE-2": 78.6}

# Table 2: shots -> mIoU, share of the fully fitted LSE, maximum deviation over five repeats.
FEWSHOT = {1: (55.6, 69.8, 5.2), 4: (64.8, 81.4, 1.0), 8: (68.4, 85.8, 2.6), 16: (70.2, 88.1, 3.0)}

# Table 3: shots -> agreement (eq 7) of Semantic-Conditional Sampling, maximum deviation over five
# refits; and with the teacher itself in the loop.
SAMPLING = {1: (37.2, 0.8), 4: (39.1, 0.5), 8: (39.4, 0.9), 16: (40.0, 0.2)}
SAMPLING_TEACHER = 34.3

# Table 6: IoU per class.
# fmt: off
CLASSES = (
    "skin",
    "nose",
    "eye_g",
    "eye",
    "brow",
    "ear",
    "mouth",
    "u_lip",
    "l_lip",
    "hair",
    "hat",
    "ear_r",
    "neck",
    "cloth",
)
_PER_CLASS = {
    "LSE": (95.9, 94.7, 69.9, 91.0, 83.5, 80.5, 84.5, 87.8, 91.2, 92.9, 11.1, 22.8, 91.0, 72.5),
    "NSE-1": (97.0, 95.4, 72.4, 92.1, 88.2, 83.0, 87.4, 91.6, 92.8, 94.2, 12.9, 34.0, 92.9, 75.9),
    "NSE-2": (96.9, 95.3, 73.4, 92.0, 87.7, 82.8, 87.7, 90.9, 92.9, 94.1, 12.9, 28.6, 92.4, 72.8),
}
# fmt: on
PER_CLASS = {name: dict(zip(CLASSES, row, strict=True)) for name, row in _PER_CLASS.items()}

# SeFa (Shen & Zhou, CVPR 2021), table 1: cosine distance of the boundary of an attribute classifier
# to the nearest direction, and that one's index.
_TRAITS = ("pose", "gender", "age", "eyeglasses", "smile")
_DISTANCES = {
    ("PGGAN Z", "PCA"): ((0.9, 23), (0.83, 1), (0.88, 1), (0.86, 1), (0.86, 10)),
    ("PGGAN Z", "SeFa"): ((0.04, 2), (0.16, 1), (0.45, 4), (0.52, 1), (0.69, 20)),
    ("StyleGAN W", "PCA"): ((0.28, 9), (0.71, 2), (0.73, 5), (0.72, 5), (0.73, 25)),
    ("StyleGAN W", "SeFa"): ((0.13, 1), (0.64, 3), (0.8, 6), (0.65, 6), (0.65, 37)),
}
SEFA_DISTANCES = {key: dict(zip(_TRAITS, row, strict=True)) for key, row in _DISTANCES.items()}


def same_classes(classes: Collection[str]) -> bool:
    """Whether these (of which images may lack some) are the paper's face classes."""
    return set(classes) <= {"bg", *CLASSES}
