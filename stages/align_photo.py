"""Photos become squares cut as FFHQ's are: to see what invert_photo will see, or to keep."""

from pathlib import Path

from pipeline.data.options import Alignment
from stages import run


def align_photo(
    photos: list[Path],
    *,
    out: Path,
    alignment: Alignment,
    size: int = 1024,  # side of the squares, px
) -> None:
    """Write NAME.png into a folder, the square around the face of each photo."""
    from pipeline.data.photo_files import write_png
    from pipeline.data.photos import check_photos, read_subject

    for path, points in zip(photos, check_photos(photos, alignment), strict=True):
        subject = read_subject(path, alignment, points)
        write_png(out / f"{subject.name}.png", subject.aligned(size))


if __name__ == "__main__":
    run(align_photo)
