"""Torch zip files read with weights_only: tensors and plain containers, nothing that runs."""

import io
import pickle
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import InputError


def load_plain(content: bytes) -> Any:
    """What torch.save wrote, on the CPU; InputError for whatever is not plain data."""
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"a file that torch will not read as plain weights ({reason})",
            "an intact torch zip file that holds tensors only",
            "fetch the file again",
        ) from error


def read_torch(content: bytes, key: str) -> dict[str, Tensor]:
    """The state dict under `key` of a torch zip file, on the CPU."""
    value = load_plain(content)
    if not isinstance(value, dict) or not isinstance(value.get(key), dict):
        found = ", ".join(map(str, value)) if isinstance(value, dict) else type(value).__name__
        raise InputError(f"a torch file with {found}", f"a state dict under {key!r}", "check it")
    return value[key]
