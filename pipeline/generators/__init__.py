"""Generators: one contract, one file per family; loaded from our own safetensors files."""

from pathlib import Path

import torch

from pipeline.checkpoints import read_safetensors
from pipeline.errors import InputError, choose
from pipeline.generators import dcgan, mobile_stylegan
from pipeline.generators.base import Generator

FAMILIES = {"dcgan": dcgan.build, "mobile_stylegan": mobile_stylegan.build}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_generator(
    path: str | Path,
    family: str | None = None,  # None: as the file says
    device: str | torch.device = "cpu",
    dtype: str = "float32",  # what synthesis computes in; the mapping stays float32
) -> Generator:
    """Load a frozen generator, channels-last, from a file that fetch_checkpoint wrote."""
    tensors, facts = read_safetensors(path)
    family = family or facts.get("family")
    if family is None:
        raise InputError(
            f"{path}, which names no family", f"one of {', '.join(FAMILIES)}", "pass family="
        )
    compute = DTYPES[choose("dtype", dtype, DTYPES)]
    try:
        network = FAMILIES[choose("family", family, FAMILIES)](tensors)
    except KeyError as error:
        raise InputError(
            f"{path}, which lacks tensor {error}", f"a {family} checkpoint", "fetch it again"
        ) from error
    network = network.eval().requires_grad_(False).to(device)
    network = network.to(memory_format=torch.channels_last)
    if compute is torch.bfloat16:
        _cast_synthesis(network, compute)
    return network


def _cast_synthesis(network: Generator, dtype: torch.dtype) -> None:
    """Cast all but the mapping network and w_avg."""
    for name, part in network.named_children():
        if name != "mlp":
            part.to(dtype)
    for name, parameter in network.named_parameters(recurse=False):
        setattr(network, name, torch.nn.Parameter(parameter.to(dtype), requires_grad=False))
