"""Run benchmarks on the studies that `make repro` made; print and write reports/benchmarks/."""

import importlib
import os
import sys
import time
from pathlib import Path

import torch

from pipeline.runtime.devices import fast_bfloat16
from pipeline.runtime.errors import InputError, choose
from pipeline.runtime.files import write_json

BENCHMARKS = {  # name: rough minutes on two cores
    "noop": 0.1,
    "synthesis": 0.5,
    "modulation": 3,
    "cache": 1,
    "memory": 4,
    "bfloat16": 3,
    "alignment": 4,
    "solver": 80,
    "nse_rates": 40,
    "latent_step": 1,
    "directions": 0.1,
    "clustering": 2,
    "fewshot_rule": 3,
    "fewshot": 30,
}
BY_NAME = {"halves": 70, "teacher": 4}  # need a folder of faces: run if they are named


def machine() -> str:
    """Cores and bfloat16 units of the CPU, or the GPU: what figures must not be compared across."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    with open("/proc/cpuinfo") as file:
        (model, *_) = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    units = "with" if fast_bfloat16("cpu") else "no"
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {units} bfloat16 units"


def main(names: list[str]) -> None:
    """Run the named benchmarks, or all, in the table's order."""
    known = BENCHMARKS | BY_NAME
    for name in names or BENCHMARKS:
        choose("benchmark", name, known)
        print(f"== {name} (about {known[name]} min)", flush=True)
        start = time.perf_counter()
        result = importlib.import_module(f"benchmarks.{name}").measure()
        for key, value in result.items():
            print(f"{key:>44}  {value}", flush=True)
        result["machine"] = machine()
        result["minutes"] = round((time.perf_counter() - start) / 60, 1)
        write_json(Path("reports/benchmarks") / f"{name}.json", result)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
