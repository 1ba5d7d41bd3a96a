"""Torch zip files read with weights_only: tensors and plain containers, nothing that runs."""

import io
import pickle

import torch
from torch import Tensor

from pipeline.errors import InputError


def read_torch(content: bytes, key: str) -> dict[str, Tensor]:
    """The state dict under `key` of a torch zip file, on the CPU."""
    try:
        value = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"a file that torch will not read as plain weights ({reason})",
            "an intact torch zip file that holds tensors only",
            "fetch the file again",
        ) from error
    if not isinstance(value, dict) or not isinstance(value.get(key), dict):
        found = ", ".join(map(str, value)) if isinstance(value, dict) else type(value).__name__
        raise InputError(f"a torch file with {found}", f"a state dict under {key!r}", "check it")
    return value[key]
