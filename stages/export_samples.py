"""Samples of the pool become PNGs to annotate, named so that their latents are found again."""

from pathlib import Path

from pipeline.runtime.options import Synthesis
from stages import run


def export_samples(
    checkpoint: Path,
    latents: Path,
    masks: Path,
    out: Path,
    *,
    study: str,
    samples: int = 16,  # samples of the pool, from the first
    machine: Synthesis,
) -> None:
    """Write the first samples of the pool, and the classes for annotation tools, into a folder."""
    from pipeline.data.annotation_files import write_samples, write_tools
    from pipeline.data.arrays import Group
    from pipeline.data.features import open_source
    from pipeline.runtime.files import sha256

    source = open_source(checkpoint, latents, machine.device, machine.compute)
    classes = Group(masks).attributes["classes"]
    write_samples(source, study, sha256(checkpoint), samples, out / "images")
    write_tools(out, classes, source.generator().resolution)


if __name__ == "__main__":
    run(export_samples)
