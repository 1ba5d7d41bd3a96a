"""A checkpoint file of any known format, told apart by its content, as plain data."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.generators.importers.parts import choose_part
from pipeline.generators.readers.nvlabs import (
    Module,
    attributes,
    class_names,
    read_nvlabs,
    state_dict,
)
from pipeline.generators.readers.torchzip import LEGACY_MAGIC, load_plain
from pipeline.runtime.errors import InputError
from pipeline.runtime.weights import read_safetensors

MAX_GIB = 8  # of a file

# Where networks lie in NVLabs' pickles.
PARTS = ("G_ema", "generator", "model")

# What a file that is none of ours begins with.
STARTS = {
    b"<!doctype": "a web page: the download gave no file",
    b"<html": "a web page: the download gave no file",
    b"<?xml": "an XML file",
    b"version https://git-lfs": "a git-lfs pointer: the file itself was not fetched",
    b"\x89hdf": "an HDF5 file (Keras)",
    b"\x93numpy": "a NumPy array",
    b"\x1f\x8b": "a gzip file: unpack it and name the file in it",
    b"gguf": "a GGUF file",
    b"\xfd7zxz": "an xz file: unpack it and name the file in it",
}

# What classes in a pickle say about a network that is no StyleGAN2.
CLASSES = {
    "SynthesisInput": "a StyleGAN3 generator",
    "EDMPrecond": "a diffusion model (EDM)",
    "VPPrecond": "a diffusion model",
    "VEPrecond": "a diffusion model",
    "iDDPMPrecond": "a diffusion model",
    "Precond": "a diffusion model (EDM2)",
    "TriPlaneGenerator": "an EG3D generator",
    "SuperresGenerator": "a StyleGAN-XL generator",
}


@dataclass(frozen=True)
class Checkpoint:
    """A file as data: its format, the part that was taken, named tensors, and facts."""

    format: str  # safetensors, torch or nvlabs
    part: str  # key in the file; "" for the whole
    tensors: dict[str, Tensor]
    facts: dict = field(default_factory=dict)  # of our own safetensors files


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a generator's state dict; InputError says what else the file seems to be."""
    kind = sniff(path)
    if kind == "safetensors":
        tensors, facts = read_safetensors(path)
        if "family" in facts:
            return Checkpoint(kind, "", tensors, facts)
        chosen = choose_part(tensors)
        return Checkpoint(kind, chosen.name, chosen.tensors, facts)
    content = Path(path).read_bytes()
    value = load_plain(content) if kind == "torch" else read_nvlabs(content)
    try:
        part, tensors = _state_dict(value)
        return Checkpoint(kind, part, _checked(tensors, len(content)))
    except (TypeError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise InputError(
            f"{path} with values of other types ({str(error)[:100]})",
            "a generator's state dict",
            "fetch the file again",
        ) from error


def sniff(path: str | Path) -> str:
    """safetensors, torch or nvlabs, by the first bytes; InputError names what else it is."""
    path = Path(path)
    if path.is_dir():
        names = ", ".join(sorted(p.name for p in path.iterdir())[:5]) or "nothing"
        raise InputError(f"{path}, a folder with {names}", "a checkpoint", "name the file in it")
    if not path.is_file():
        raise InputError(
            f"no file at {path}", "a checkpoint", "check the path, or run `dvc repro` to make it"
        )
    size = path.stat().st_size
    if size > MAX_GIB * 2**30:
        raise InputError(f"{path} of {size / 2**30:.1f} GiB", f"at most {MAX_GIB}", "check it")
    with path.open("rb") as file:
        head = file.read(64)
    if head[8:9] == b"{":  # after eight bytes of the header's length
        return "safetensors"
    if head.startswith((b"PK\x03\x04", LEGACY_MAGIC)):
        return "torch"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "nvlabs"
    seems = next((what for start, what in STARTS.items() if head.lower().startswith(start)), None)
    raise InputError(
        f"{path}, {seems or ('an empty file' if not size else 'of no known format')}",
        "a checkpoint: safetensors, torch.save (.pt, .pth) or an NVLabs network pickle (.pkl)",
        "fetch the file again, or name another one",
    )


def _state_dict(value: Any) -> tuple[str, dict[str, Any]]:
    """The generator's state dict in what a file holds, and the key that it lay under."""
    if isinstance(value, Module):
        value = {"G_ema": value}
    if not isinstance(value, dict):
        raise InputError(f"a file with a {type(value).__name__}", "a state dict", "check the file")
    for part in PARTS:
        found = value.get(part)
        if isinstance(found, Module):
            return part, _of_module(found)
    if modules := {k: v for k, v in value.items() if isinstance(v, Module)}:
        part, module = next(iter(modules.items()))
        raise InputError(
            f"{_seems(module)} under {part!r}", "a generator under 'G_ema'", "use another network"
        )
    if {"arch", "param"} <= value.keys():
        raise InputError(
            "a semantic extractor of the LinearGAN reference",
            "a generator",
            "read it with pipeline.published_extractors",
        )
    chosen = choose_part(value)
    return chosen.name, chosen.tensors


def _seems(module: Module) -> str:
    names = class_names(module)
    known = next((what for name, what in CLASSES.items() if name in names), None)
    return known or f"a network of class {module.class_name}"


def _of_module(module: Module) -> dict[str, Tensor]:
    """The state dict of NVLabs' StyleGAN2, with `conv_clamp` where its layers clamp.

    InputError for another network, or for settings that its tensors do not show.
    """
    tensors = state_dict(module)
    if "synthesis.b4.const" not in tensors:
        raise InputError(_seems(module), "NVLabs' StyleGAN2", "use another network")
    activations = attributes(module, "activation").items()
    rates = [v for k, v in attributes(module, "bias_gain").items() if k.startswith("mapping.fc")]
    if any(v != "lrelu" for k, v in activations if ".conv" in k and not k.endswith("affine")):
        raise InputError("a StyleGAN2 of other activations", "lrelu", "use another network")
    if any(not math.isclose(rate, 0.01) for rate in rates):
        raise InputError(f"a mapping of lr_multiplier {rates[0]}", "0.01", "use another network")
    clamps = {v for k, v in attributes(module, "conv_clamp").items() if ".conv" in k}
    if len(clamps) > 1:
        raise InputError(f"layers of conv_clamp {clamps}", "one for all", "use another network")
    clamp = next(iter(clamps), None)
    return tensors if clamp is None else tensors | {"conv_clamp": torch.tensor(float(clamp))}


def _checked(tensors: dict, file_bytes: int) -> dict[str, Tensor]:
    """The dense tensors on the CPU, none larger than the file; other values are left out."""
    found = {}
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            continue
        value = value.detach()
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_complex():
            raise InputError(
                f"tensor {name} of {value.dtype}, {value.layout}", "a dense one", "check the file"
            )
        if value.numel() * value.element_size() > file_bytes:
            raise InputError(f"tensor {name} larger than the file", "dense ones", "check the file")
        found[name] = value
    return found
