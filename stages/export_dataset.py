"""Any number of generated samples become images with masks: a data set to train a network on."""

from pathlib import Path

from pipeline.analysis.dataset.options import Export
from pipeline.runtime.options import Machine
from stages import run


def export_dataset(
    checkpoint: Path,
    out: Path,
    *,
    extractor: list[Path],  # fitted extractor (safetensors); repeat for a committee
    plan: Export,
    machine: Machine,
) -> None:
    """Write images/*, masks/*.png and, of a committee, uncertainty/*.png, and what made them.

    Killed, it goes on behind the last finished sample. More samples make the same set grow.
    """
    from pipeline.analysis.dataset.export import export_dataset as write
    from pipeline.data.features import open_source

    source = open_source(checkpoint, out, machine.device, machine.compute)
    done = write(source, [str(path) for path in extractor], out, plan, machine.workers)
    print(f"{done['kept']} of {done['samples']} samples kept in {out}")


if __name__ == "__main__":
    run(export_dataset)
