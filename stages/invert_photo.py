"""Photos become latents of a generator, whose images look like them: for every command."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.data.options import Alignment
from pipeline.editing.inversion.options import Inversion
from pipeline.runtime.options import Machine
from stages import run


@dataclass(frozen=True)
class Reader:
    """A generator, and the linear reading that shows its images without synthesizing them."""

    checkpoint: Path = Path("data/checkpoints/ffhq.safetensors")
    appearance: Path = Path("data/appearance/ffhq.safetensors")


def invert_photo(
    photos: list[Path],
    *,
    out: Path,
    alignment: Alignment,
    rule: Inversion,
    machine: Machine,
    study: Reader,
    extractor: Path | None = None,  # fitted extractor that writes NAME_mask.png; none: no masks
    label_size: int = 256,  # side of masks, px
) -> None:
    """Write latents.zarr.zip, photos.json with distances, and NAME.png of each photo's latents.

    Killed, it goes on with the first photo that is not finished.
    """
    from pipeline.data.features import open_source
    from pipeline.editing.inversion.files import check_reader, draw_photos, invert_files

    source = open_source(study.checkpoint, out, machine.device, machine.compute)
    check_reader(extractor, source)
    found = invert_files(source, study.appearance, photos, alignment, rule, out, machine.workers)
    draw_photos(found, [photo.stem for photo in photos], out, extractor, label_size)


if __name__ == "__main__":
    run(invert_photo)
