"""Options of the stores of features and pixels."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Stored:
    """How arrays are stored."""

    samples_per_shard: int = 8  # samples per shard: the unit of work, writing and repair
    stored: str = "int8"  # dtype on disk: float16, or int8 scaled per sample and channel
    max_gib: float  # a plan above this many GiB is refused


@dataclass(frozen=True, kw_only=True)
class FeatureCache(Stored):
    """Which images and taps are cached."""

    label_size: int  # side of images and masks, px
    max_tap_resolution: int  # taps up to this many px are cached; finer ones are streamed


@dataclass(frozen=True, kw_only=True)
class PixelCache(Stored):
    """Which hypercolumns are cached."""

    pixels_per_sample: int = 512  # hypercolumns drawn from each sample
    align_corners: bool  # align tap and label grids at corner centers (the reference's way)


@dataclass(frozen=True)
class Alignment:
    """How the square that a generator knows is found in a photo."""

    aligned: bool = False  # photos are squares already, cut as FFHQ's are
    # "x,y x,y x,y x,y" of each photo, in px: left eye, right eye, mouth corners; none: the face is
    # found (needs the extra `photos`).
    points: tuple[str, ...] = ()
