"""How fast one core of this machine is: `python -m pipeline.runtime.probe` prints it as JSON.

A program of its own, so that a command that only starts others need not load torch.
"""

import json
import time

import torch

from pipeline.runtime.devices import fast_bfloat16

SLICES, ROUNDS = 10, 10  # a second in all on the machine of reports/durations.json


def probe() -> dict:
    """Rounds of fixed work per CPU-second of one thread, and whether bfloat16 products are fast.

    A round is a float32 matrix product and a 3x3 convolution, of sizes that the stages work with.
    The fastest of several slices counts, in CPU time: other processes change it little.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pixels, weights = torch.randn(4096, 512), torch.randn(512, 128)
    maps, kernel = torch.randn(1, 64, 64, 64), torch.randn(64, 64, 3, 3)

    def seconds() -> float:
        start = time.process_time()
        for _ in range(ROUNDS):
            pixels @ weights
            torch.nn.functional.conv2d(maps, kernel, padding=1)
        return time.process_time() - start

    rate = ROUNDS / min(seconds() for _ in range(SLICES))
    return {"probe_rate": round(rate, 1), "bfloat16_units": fast_bfloat16("cpu")}


if __name__ == "__main__":
    print(json.dumps(probe()))
