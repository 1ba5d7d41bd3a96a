"""Peak anonymous memory of caching and fitting, with N and with 4 N samples."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from pipeline.data.arrays import Group, write_group

SMALL, TIMES = 16, 4
# What fit_extractor wants to know of an NSE's training, also when it fits an LSE.
UNUSED = [
    *("--steps", "1", "--batch", "1", "--window", "64", "--looks", "1", "--patience", "1"),
    *("--nse2_width", "64", "--learning_rates", "nse1=0.01"),
]
CHECKPOINT = "data/checkpoints/ffhq.safetensors"


def peak_anonymous(command: list[str], env: dict) -> float:
    """Run a command; the largest sum of RssAnon over it and its children, in MiB."""
    process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    peak, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], sum(map(anonymous, family(process.pid))))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = process.wait()
    done.set()
    watcher.join()
    assert status == 0, f"{command} failed"
    return peak[0] / 1024


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid] + [p for child in children for p in family(int(child))]


def anonymous(pid: int) -> int:
    """RssAnon of a process in KiB, which leaves memory-mapped pages out."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


def subset(folder: Path, train: int) -> None:
    """The first `train` training and 8 validation samples of the study, as a study of its own."""
    for name, keys in (("latents", ("seeds", "z", "ws")), ("masks", ("masks",))):
        group = Group(f"data/{name}/ffhq.zarr.zip")
        arrays = {
            f"{split}/{key}": group.read(split, key, slice(0, size))
            for split, size in (("train", train), ("validation", 8))
            for key in keys
        }
        write_group(folder / f"{name}.zarr.zip", arrays, group.attributes)


def commands(folder: Path) -> dict[str, list[str]]:
    """The three stages on the subset; a fit's pixel budget is a total.

    One worker each: what several need is that many times as much, whatever the samples.
    """
    stage = [sys.executable, "-m"]
    common = ["--compute", "float32", "--device", "cpu", "--max_gib", "8", "--workers", "1"]
    shard = ["--samples_per_shard", "8", "--stored", "int8"]
    f = str(folder)
    return {
        "cache_features": [
            *stage, "stages.cache_features", CHECKPOINT, f"{f}/latents.zarr.zip",
            f"{f}/features.json", f"{f}/images.zarr.zip", "--label_size", "256",
            "--max_tap_resolution", "128", *shard, *common,
        ],
        "cache_pixels": [
            *stage, "stages.cache_pixels", CHECKPOINT, f"{f}/latents.zarr.zip",
            f"{f}/masks.zarr.zip", f"{f}/pixels.json", "--pixels_per_sample", "512",
            "--no-align-corners", *shard, *common,
        ],
        "fit_extractor": [
            *stage, "stages.fit_extractor", f"{f}/features.json", f"{f}/masks.zarr.zip",
            f"{f}/pixels.json", f, f, f"{f}/costs.json", "--names", "lse",
            "--solver", "lbfgs", "--l2", "0.01", "--l2", "0.001", "--iterations", "6",
            "--epochs", "50", "--pixel_budget", str(512 * SMALL), "--device", "cpu",
            *UNUSED,
        ],
    }  # fmt: skip


def measure() -> dict:
    """Peak MiB of each stage with SMALL and TIMES x SMALL samples, and their ratio."""
    peaks: dict[str, list[float]] = {}
    for samples in (SMALL, SMALL * TIMES):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            subset(folder, samples)
            env = os.environ | {"PIPELINE_STORE": f"{name}/store"}
            for stage, command in commands(folder).items():
                peaks.setdefault(stage, []).append(peak_anonymous(command, env))
    result: dict = {}
    for stage, (small, large) in peaks.items():
        result[f"{stage}, {SMALL} samples, MiB"] = round(small)
        result[f"{stage}, {SMALL * TIMES} samples, MiB"] = round(large)
        result[f"{stage}, ratio"] = round(large / small, 3)
    return result
