"""What people need to annotate samples: the images, and the classes for their tools."""

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import torch
from PIL import Image, PngImagePlugin

from pipeline.data.annotations import Pool, SampleName
from pipeline.data.arrays import Group
from pipeline.data.features import Source
from pipeline.data.images import to_uint8
from pipeline.data.mask_files import write_mask
from pipeline.data.palette import UNLABELED, rgb
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import atomic, sha256


def write_samples(
    source: Source,
    study: str,
    generator: str,  # hex digits of the checkpoint's sha256
    count: int,
    folder: Path,
) -> list[Path]:
    """The first `count` samples of the pool as PNGs at the generator's own size."""
    group = Group(source.latents)
    total = group.splits.get("pool", 0)
    if not 1 <= count <= total:
        raise InputError(
            f"{count} samples of a pool of {total}",
            f"1 to {total}",
            "change samples, or raise the study's sample.pool",
        )
    if "-" in study:
        raise InputError(f"study {study!r}", "a name without '-'", "rename it in the export")
    seeds, psi = group.read("pool", "seeds"), group.attributes["truncation_psi"]
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for row in range(count):
        with torch.inference_mode():
            image = source.generator().synthesis(source.ws("pool", row, row + 1))
        name = SampleName(study, "pool", row, int(seeds[row]), psi, generator)
        facts = PngImagePlugin.PngInfo()
        for key, value in vars(name).items():
            facts.add_text(key, str(value))
        pixels = to_uint8(image, image.shape[-1])[0].transpose(1, 2, 0)
        paths.append(folder / f"{name}.png")
        with atomic(paths[-1]) as partial:
            Image.fromarray(np.ascontiguousarray(pixels)).save(partial, "PNG", pnginfo=facts)
    return paths


def write_tools(folder: Path, classes: Sequence[str], size: int) -> None:
    """classes.txt (LabelMe), label_studio.xml, palette.gpl (GIMP, Krita), and an empty mask."""
    colors = rgb(classes)
    hexes = [f"#{bytes(color).hex()}" for color in colors]
    rows = zip(classes, colors, strict=True)
    labels = "".join(
        f"    <Label value={quoteattr(name)} background={quoteattr(color)}/>\n"
        for name, color in zip(classes, hexes, strict=True)
    )
    texts = {
        "classes.txt": "".join(f"{name}\n" for name in classes),
        "label_studio.xml": '<View>\n  <Image name="image" value="$image"/>\n'
        '  <BrushLabels name="brush" toName="image">\n' + labels + "  </BrushLabels>\n</View>\n",
        "palette.gpl": "GIMP Palette\nName: classes\n"
        + "".join(f"{r:3d} {g:3d} {b:3d}\t{name}\n" for name, (r, g, b) in rows)
        + "255   0 255\tunlabeled\n",
    }
    for name, text in texts.items():
        with atomic(folder / name) as partial:
            partial.write_text(text)
    write_mask(folder / "empty.png", np.full((size, size), UNLABELED, np.uint8), classes)


def open_pool(source: Source, masks: str | Path) -> Pool:
    """The pool that a study's annotations may be of."""
    latents, labels = Group(source.latents), Group(masks)
    return Pool(
        latents.read("pool", "seeds"),
        latents.attributes["truncation_psi"],
        sha256(source.checkpoint),
        tuple(labels.attributes["classes"]),
        labels.label_size,
        source.generator().resolution,
    )
