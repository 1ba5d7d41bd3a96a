"""Readers that turn files into named tensors and facts, and never run code from a file."""

import json
from pathlib import Path

from torch import Tensor

from pipeline.runtime.errors import InputError
from pipeline.runtime.files import atomic


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Named tensors and the facts (a JSON object in the header) of a .safetensors file."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).exists():
        raise InputError(f"no file at {path}", "a .safetensors file", "run `dvc repro` to make it")
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get("facts", "{}"))
            if not isinstance(facts, dict):
                raise ValueError("facts that are no object")
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except (SafetensorError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}, which is damaged or not safetensors ({error})",
            "a complete .safetensors file",
            "delete it and run `dvc repro`",
        ) from error


def write_safetensors(path: str | Path, tensors: dict[str, Tensor], facts: dict) -> None:
    """Write tensors and facts atomically; equal input gives equal bytes."""
    from safetensors.torch import save_file

    ordered = {name: tensors[name].contiguous() for name in sorted(tensors)}
    with atomic(path) as partial:
        save_file(ordered, partial, {"facts": json.dumps(facts, sort_keys=True)})
