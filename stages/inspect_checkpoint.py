"""A checkpoint of any supported format becomes a description: family, taps, and a study's cost."""

from pathlib import Path

from stages import run


def inspect_checkpoint(
    file: Path,
    *,
    class_idx: int | None = None,  # class of a conditional generator
    fused: bool | None = None,  # whether a GenForce PGGAN of equal widths is fused; none: it is not
    samples: int = 528,  # samples of the study whose cost is estimated; ffhq: 528
    json: bool = False,  # print JSON
    study: str | None = None,  # name of a new one, whose entry of params.yaml is printed instead
) -> None:
    """Say what a file holds, try one sample, and estimate what a study of it takes."""
    from json import dumps

    from pipeline.data.inspection import inspect_checkpoint, report

    found = inspect_checkpoint(file, class_idx, samples, fused)
    if study:
        from pipeline.data.new_study import choose_sizes, entry, limits
        from pipeline.runtime.files import sha256
        from pipeline.runtime.parameters import read_yaml

        sizes = choose_sizes(found, limits(read_yaml(Path("params.yaml"))))
        print(entry(study, sha256(file), found, class_idx, sizes))
    else:
        print(dumps(found, indent=1) if json else report(found))


if __name__ == "__main__":
    run(inspect_checkpoint)
