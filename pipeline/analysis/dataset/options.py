"""Options of a data set of generated samples."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Export:
    """Which samples a data set has, and how they are written."""

    samples: int = 1000  # samples to make; the most uncertain of them are dropped
    # Seed of the first sample; each of the others has the next one. A study's splits begin at
    # 10,000,000 and end before 14,000,000.
    first_seed: int = 14_000_000
    psis: tuple[float, ...] = (0.5, 0.7, 1.0)  # truncations, in turn; repeat for more
    size: int = 256  # side of images and masks, px; at most the generator's
    format: str = "jpeg"  # of images: jpeg, png or webp
    quality: int = 95  # of JPEG and WebP, 1 to 100
    label_size: int = 256  # px at which extractors read; masks are their scores, interpolated
    # Share of the samples that is dropped, those that the committee is least sure of; none: a tenth
    # of a committee's, and none of a single extractor's.
    drop: float | None = None
    layouts: tuple[str, ...] = ("folder",)  # folder, coco, huggingface or parquet; repeat for more
