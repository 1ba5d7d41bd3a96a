"""Images whose semantics are your own mask: Semantic-Conditional Sampling as a tool."""

from pathlib import Path

from stages import run


def sample_conditionally(
    checkpoint: Path,
    extractor: Path,
    *,
    target: list[Path],
    out: Path,
    samples: int = 4,
    candidates: int = 10,
    steps: int = 50,
    learning_rate: float = 0.1,
    truncation_psi: float = 1.0,
    seed: int = 0,
    compute: str = "auto",
    device: str = "auto",
) -> None:
    """Write images that the extractor sees as the mask, their masks and latents, into a folder."""
    from pipeline.editing.optimize import ByExtractor
    from pipeline.editing.sampling.files import sample_like
    from pipeline.editing.sampling.method import Search
    from pipeline.editing.sampling.targets import read_masks
    from pipeline.extractors.networks import load_extractor
    from pipeline.generators.registry import load_generator
    from pipeline.runtime.devices import pick_compute, pick_device

    where = pick_device(device)
    generator = load_generator(checkpoint, device=where, dtype=pick_compute(compute, where))
    segmenter = ByExtractor(load_extractor(extractor, where))
    search = Search(candidates, steps, learning_rate, seed, truncation_psi)
    masks = read_masks(target, segmenter.classes)
    sample_like(generator, segmenter, masks, samples, search, out)


if __name__ == "__main__":
    run(sample_conditionally)
