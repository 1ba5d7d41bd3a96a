"""How long a `dvc repro` takes that has nothing to do."""

import subprocess
import time


def measure() -> dict:
    """Median of five runs, in seconds; the pipeline must be up to date."""
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        done = subprocess.run(["dvc", "repro"], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - start)
        assert "up to date" in done.stdout, "run `dvc repro` first"
    return {"no-op dvc repro, s": round(sorted(seconds)[2], 2)}
