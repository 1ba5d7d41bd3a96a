"""Whether queued experiments see the inputs of a study: DVC runs them in a copy of what git has."""

import subprocess
from collections.abc import Iterable
from pathlib import Path


def untracked(paths: Iterable[str], folder: Path = Path()) -> dict[str, str]:
    """{path: what to do about it} of existing files and folders that neither git nor DVC tracks.

    Paths are relative to `folder`, the root of the repository. Staged is tracked. Without git, or
    outside a repository, none is named.
    """
    advice = {}
    for path in dict.fromkeys(paths):
        if not (folder / path).exists() or _git(folder, "rev-parse", "--git-dir") is None:
            continue
        places = [str(Path(path)), *(f"{place}.dvc" for place in (path, *_parents(path)))]
        if _git(folder, "ls-files", "--", *places):
            continue
        if _git(folder, "check-ignore", "--", path):
            advice[path] = "git ignores it: move it, `dvc add` it, and `git add` the .dvc file"
        else:
            advice[path] = f"git add {path}"
    return advice


def _parents(path: str) -> list[str]:
    return [str(parent) for parent in Path(path).parents if parent != Path()]


def _git(folder: Path, *command: str) -> str | None:
    """What git prints; None where it fails or is missing."""
    try:
        done = subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
