"""Commits and experiments side by side: the parameters and headline metrics that differ."""

import json
import subprocess
import sys

from stages import run


def show_experiments(
    *,
    num: int = 1,  # commits to show, from the newest back
    width: int = 140,  # characters of a line, at most
) -> None:
    """Print a column per revision of `dvc exp show`, in lines of at most `width` characters."""
    from pipeline.reporting.experiments import changed_table
    from pipeline.runtime.errors import InputError

    command = [sys.executable, "-m", "dvc", "exp", "show", "--json", "--num", str(num)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise InputError(
            f"`dvc exp show`, which said: {said[0]}", "a DVC project", "run it in the repository"
        )
    print(changed_table(json.loads(done.stdout), width))


if __name__ == "__main__":
    run(show_experiments)
