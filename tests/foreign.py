"""Checkpoints as other projects write them, made of plain tensors, to test their readers."""

import io
import pickle
import sys
import types
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

DATA = Path(__file__).parent / "data"
SOURCE = "raise SystemExit('module_src was run')"


def golden(name: str) -> dict[str, Tensor]:
    """A golden file's arrays as tensors; its strings are left out."""
    with np.load(DATA / f"{name}.npz") as file:
        return {k: torch.from_numpy(file[k]) for k in file.files if file[k].dtype.kind != "U"}


def part(values: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Values under a prefix, which is cut off."""
    return {k[len(prefix) :]: v for k, v in values.items() if k.startswith(prefix)}


def torch_bytes(value, zipped: bool = True) -> bytes:
    """What torch.save writes, in its zip format or the legacy one."""
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


class Network:
    """A network as NVLabs' persistence pickles it: class name, source code and state."""

    def __init__(self, class_name: str, source: str = SOURCE, **attributes):
        self.class_name, self.source = class_name, source
        self.state = {
            "training": False,
            "_parameters": {},
            "_buffers": {},
            "_non_persistent_buffers_set": set(),
            "_modules": {},
            "_init_args": (),
            "_init_kwargs": {"gain": np.sqrt(2)},
            **attributes,
        }

    def __reduce__(self):
        meta = {
            "type": "class",
            "version": 6,
            "module_src": self.source,
            "class_name": self.class_name,
            "state": self.state,
        }
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,)


CLASSES = {"mapping": "MappingNetwork", "synthesis": "SynthesisNetwork", "torgb": "ToRGBLayer"}


def nvlabs_network(tensors: dict[str, Tensor], conv_clamp: float | None = None, **options):
    """A nested Network of dotted names, with the attributes that a real one's layers have."""
    root = Network("Generator", **options)
    for name, value in tensors.items():
        *path, leaf = name.split(".")
        owner = root
        for step in path:
            if step not in owner.state["_modules"]:
                kind = CLASSES.get(step, "SynthesisLayer" if "conv" in step else "SynthesisBlock")
                child = Network(kind, **options)
                if step.startswith("conv"):
                    child.state |= {"activation": "lrelu", "conv_clamp": conv_clamp}
                if step.startswith("fc"):
                    child.state |= {"activation": "lrelu", "bias_gain": 0.01}
                owner.state["_modules"][step] = child
            owner = owner.state["_modules"][step]
        kind = "_buffers" if leaf in ("resample_filter", "noise_const", "w_avg") else "_parameters"
        owner.state[kind][leaf] = (
            torch.nn.Parameter(value, False) if kind == "_parameters" else value
        )
    return root


@contextmanager
def nvlabs_modules():
    """The module names that NVLabs' pickles refer to, while one is written."""
    persistence = types.ModuleType("torch_utils.persistence")
    util = types.ModuleType("dnnlib.util")

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("only a reader of NVLabs' own would call this")

    class EasyDict(dict):
        pass

    for module, value in ((persistence, _reconstruct_persistent_obj), (util, EasyDict)):
        value.__module__, value.__qualname__ = module.__name__, value.__name__
        setattr(module, value.__name__, value)
    names = {
        "torch_utils": types.ModuleType("torch_utils"),
        "torch_utils.persistence": persistence,
        "dnnlib": types.ModuleType("dnnlib"),
        "dnnlib.util": util,
    }
    sys.modules.update(names)
    try:
        yield EasyDict
    finally:
        for name in names:
            del sys.modules[name]


def nvlabs_bytes(network, **others) -> bytes:
    """A snapshot pickle {G_ema, training_set_kwargs, ...}, as train.py writes it."""
    with nvlabs_modules() as easy_dict:
        value = {"training_set_kwargs": easy_dict(path="x"), "G_ema": network, **others}
        return pickle.dumps(value, protocol=4)


# A published file of each family, of golden weights.
WRITERS = {
    "pggan": lambda: torch_bytes({"generator_smooth": part(golden("pggan"), "sd/")}),
    "stylegan": lambda: torch_bytes({"generator_smooth": part(golden("stylegan"), "sd/")}),
    "stylegan2": lambda: nvlabs_bytes(
        nvlabs_network(part(golden("stylegan2_ada_nvlabs_32"), "sd/"))
    ),
}
