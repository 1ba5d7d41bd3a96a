"""Where to compute: `auto` is the first CUDA device if there is one, else the CPU."""

from typing import TypeVar

import torch
from torch import nn

from pipeline.runtime.errors import InputError, choose

Network = TypeVar("Network", bound=nn.Module)


def pick_device(name: str) -> str:
    """`auto`, `cpu` or `cuda[:i]` to a device that exists."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device {name!r}", "auto, cpu or cuda[:i]", "change device") from error
    if device.type not in {"cpu", "cuda"} or (
        device.type == "cuda" and not torch.cuda.is_available()
    ):
        raise InputError(
            f"device {name!r}", "auto, cpu or a CUDA device that exists", "set device: auto"
        )
    return name


def channels_last(network: Network) -> Network:
    """The network, whose kernels are laid out for maps with channels last: changed in place."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # no stub


def fast_bfloat16(device: str) -> bool:
    """Whether bfloat16 matrix products are fast here: on GPUs, and on CPUs with units for them.

    oneDNN also offers them where it has to emulate them, five times slower than in float32.
    """
    units = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return device != "cpu" or any(getattr(torch.cpu, name, bool)() for name in units)


def pick_compute(name: str, device: str) -> str:
    """`auto`, `float32` or `bfloat16` to the dtype that synthesis computes in on `device`.

    `auto` is bfloat16 on a CPU with units for it, where it halves the time, and else float32.
    """
    choose("compute", name, ("auto", "float32", "bfloat16"))
    if name == "auto":
        return "bfloat16" if device == "cpu" and fast_bfloat16(device) else "float32"
    return name
