"""torch.save files, zip and legacy, read with weights_only: tensors and plain values, no code."""

import argparse
import io
import re
import warnings
import zipfile
from typing import Any

import torch
from torch import Tensor

from pipeline.runtime.errors import InputError

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how torch.save began before 1.6


def load_plain(content: bytes) -> Any:
    """What torch.save wrote, on the CPU; InputError for whatever is not plain data.

    Plain are tensors, numbers, strings and containers of these, and an argparse.Namespace, which
    training scripts leave. A tensor may not claim more than the file holds.
    """
    _check_zip(content)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # on storages of old files
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise anything in torch's reader
        raise InputError(
            f"a file that torch will not read as plain weights ({_reason(error)})",
            "an intact torch.save file that holds tensors only",
            "fetch the file again; if it is whole, save its state dict alone",
        ) from error


def read_torch(content: bytes, key: str) -> dict[str, Tensor]:
    """The state dict under `key` of a torch zip file, on the CPU."""
    value = load_plain(content)
    if not isinstance(value, dict) or not isinstance(value.get(key), dict):
        found = ", ".join(map(str, value)) if isinstance(value, dict) else type(value).__name__
        raise InputError(f"a torch file with {found}", f"a state dict under {key!r}", "check it")
    return value[key]


def _reason(error: Exception) -> str:
    """One line: the name that was refused, or the error's first line."""
    text = str(error) or type(error).__name__
    refused = re.search(r"GLOBAL (\S+) was not an allowed global", text)
    return f"it names {refused.group(1)}" if refused else text.splitlines()[0][:200]


def _check_zip(content: bytes) -> None:
    """Members must be stored as they are: torch never compresses, and bombs must."""
    if not content.startswith(b"PK"):
        return
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"a damaged zip file ({error})", "an intact torch zip file", "fetch the file again"
        ) from error
    names = {member.filename.rpartition("/")[2] for member in members}
    if "data.pkl" not in names or "constants.pkl" in names:
        what = "a TorchScript archive" if "data.pkl" in names else "a zip file without data.pkl"
        raise InputError(what, "a torch.save file of tensors", "save the state dict alone")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise InputError("a compressed zip file", "one as torch.save writes it", "unpack it")
