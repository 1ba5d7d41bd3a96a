"""Semantic-Conditional Sampling for a few masks, with the results as files to look at."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from pipeline.data.images import to_uint8
from pipeline.data.mask_files import write_mask
from pipeline.editing.optimize import Forward, Segmenter
from pipeline.editing.sampling.looks import Wish, sample_with_look
from pipeline.editing.sampling.method import sample_conditionally
from pipeline.editing.sampling.options import Search
from pipeline.generators.contract import Generator
from pipeline.runtime.files import atomic, write_arrays
from pipeline.runtime.progress import track


def sample_like(
    generator: Generator,
    segmenter: Segmenter,
    targets: UInt8[np.ndarray, "target size size"],
    samples: int,  # a target
    search: Search,
    folder: Path,
    wish: Wish | None = None,  # the look that samples should have; None: any
) -> None:
    """Write <target>_<sample>.png at full resolution, <target>_<sample>_mask.png and latents.npz.

    A mask is an indexed PNG of class ids, as seen by the segmenter; latents.npz has keys [N, 2] of
    (target, sample), the z that each search began at, its last one and that of the lowest loss,
    and losses.
    """
    forward = Forward(generator, "z", tuple(segmenter.taps), True, search.truncation_psi)
    size, keys = targets.shape[-1], list(np.ndindex(len(targets), samples))
    arrays: dict[str, list[np.ndarray]] = {}
    for target, sample in track(keys, "sampling conditionally", len(keys)):
        some = targets[[target]], [(target, sample)], search
        z_0, found = (
            sample_conditionally(generator, segmenter, *some)
            if wish is None
            else sample_with_look(generator, segmenter, wish, *some)
        )
        with torch.no_grad():
            rendered = forward(found.last)
            mask = segmenter.logits(rendered, size).argmax(1).to(torch.uint8).cpu().numpy()[0]
        image = to_uint8(rendered.pictures, generator.resolution)[0].transpose(1, 2, 0)
        _write_png(folder / f"{target}_{sample}.png", image)
        write_mask(folder / f"{target}_{sample}_mask.png", mask, segmenter.classes)
        results = {"z_before": z_0, "z_last": found.last, "z_best": found.best}
        results["losses"] = found.losses.T
        for name, values in results.items():
            arrays.setdefault(name, []).append(values.cpu().numpy())
    whole = {name: np.concatenate(parts) for name, parts in arrays.items()}
    write_arrays(folder / "latents.npz", {"keys": np.array(keys)} | whole)


def _write_png(path: Path, pixels: np.ndarray) -> None:
    with atomic(path) as partial:
        Image.fromarray(pixels).save(partial, "PNG")
