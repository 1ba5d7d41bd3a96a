"""Images whose semantics are your own mask: Semantic-Conditional Sampling as a tool."""

from pathlib import Path

from pipeline.editing.sampling.look_options import LookChoice
from pipeline.editing.sampling.options import Search
from pipeline.runtime.options import Synthesis
from stages import run


def sample_conditionally(
    checkpoint: Path,
    extractor: Path,
    *,
    target: list[Path],
    out: Path,
    choice: LookChoice,
    search: Search,
    machine: Synthesis,
    samples: int = 4,  # samples of each target
) -> None:
    """Write images that the extractor sees as the mask, their masks and latents, into a folder."""
    from pipeline.editing.optimize import ByExtractor
    from pipeline.editing.sampling.files import sample_like
    from pipeline.editing.sampling.looks import read_wish
    from pipeline.editing.sampling.targets import read_masks
    from pipeline.extractors.networks import load_extractor
    from pipeline.generators.registry import load_generator
    from pipeline.runtime.devices import pick_compute, pick_device

    where = pick_device(machine.device)
    generator = load_generator(checkpoint, device=where, dtype=pick_compute(machine.compute, where))
    segmenter = ByExtractor(load_extractor(extractor, where))
    masks = read_masks(target, segmenter.classes)
    wish = read_wish(generator, segmenter, choice)
    sample_like(generator, segmenter, masks, samples, search, out, wish)


if __name__ == "__main__":
    run(sample_conditionally)
