"""NVLabs' network pickles (stylegan2-ada-pytorch, stylegan3, edm), read as data.

Such a file holds the networks' source code, which its own reader executes. Here a pickle can only
call the stand-ins below, which record tensors, constructor arguments and attributes; any other name
is refused, and the source is never looked at.
"""

import io
import math
import pickle
import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.generators.readers.torchzip import load_plain
from pipeline.runtime.errors import InputError

MAX_OPCODES = 1_000_000  # a snapshot of three networks has about 50,000
MAX_TUPLES = 100_000  # nested ones are hashed and freed recursively
MAX_DEPTH = 16  # of modules in modules
SCALARS = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}
# Opcodes that no network needs: outside names, old ways to make objects, hashing of nested sets.
REFUSED = {"EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "INST", "OBJ", "FROZENSET"}
CONVERTER = "legacy.py of NVlabs/stylegan2-ada-pytorch"


@dataclass(frozen=True)
class Module:
    """A recorded network: its class's name and its attributes."""

    class_name: str
    state: dict

    def __setstate__(self, state: Any) -> None:
        """A pickle cannot set anything on what it has made."""

    def part(self, name: str) -> dict:
        """`_parameters`, `_buffers` or `_modules`; empty if there is none."""
        found = self.state.get(name)
        return found if isinstance(found, dict) else {}


class _Refused(Exception):
    """A name that the allow-list lacks."""


def read_nvlabs(content: bytes) -> Any:
    """What the pickle holds: dicts, plain values, tensors and Modules."""
    _check_opcodes(content)
    try:
        return _Reader(io.BytesIO(content)).load()
    except InputError:
        raise
    except _Refused as error:
        raise _explain(str(error)) from error
    except Exception as error:  # a damaged stream can raise anything
        raise InputError(
            f"a damaged pickle ({type(error).__name__}: {str(error)[:100]})",
            "an intact NVLabs network pickle",
            "fetch the file again",
        ) from error


def state_dict(module: Module) -> dict[str, Tensor]:
    """{dotted name: tensor} of a recorded network's parameters and buffers."""
    return {
        f"{path}.{name}" if path else str(name): value
        for path, owner in _modules(module, "")
        for kind in ("_parameters", "_buffers")
        for name, value in owner.part(kind).items()
        if isinstance(value, Tensor)
    }


def attributes(module: Module, name: str) -> dict[str, Any]:
    """{dotted name of a submodule: its plain attribute `name`}, where it has one."""
    return {path: m.state[name] for path, m in _modules(module, "") if name in m.state}


def class_names(module: Module) -> set[str]:
    """The class names of a recorded network and all in it."""
    return {m.class_name for _, m in _modules(module, "")}


def _modules(module: Module, path: str, depth: int = 0) -> list[tuple[str, Module]]:
    if depth > MAX_DEPTH:
        raise InputError("modules nested in themselves", f"at most {MAX_DEPTH} deep", "check it")
    found = [(path, module)]
    for name, child in module.part("_modules").items():
        if isinstance(child, Module):
            found += _modules(child, f"{path}.{name}" if path else str(name), depth + 1)
    return found


def _check_opcodes(content: bytes) -> None:
    """Refuse streams that would exhaust memory or the stack, or that use more than data needs.

    A pickler numbers its memo in order; an arbitrary number would make the reader allocate for it.
    """
    tuples = 0
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            tuples += opcode.name.startswith("TUPLE")
            if opcode.name in REFUSED:
                raise InputError(f"a pickle with {opcode.name}", "plain data", "do not trust it")
            puts = opcode.name in ("PUT", "BINPUT", "LONG_BINPUT")
            if puts and (not isinstance(argument, int) or argument > count):
                raise InputError("a pickle with a hostile memo", "plain data", "do not trust it")
            if count > MAX_OPCODES or tuples > MAX_TUPLES:
                raise InputError(
                    "a pickle of too many parts", f"at most {MAX_OPCODES} opcodes", "check it"
                )
    except InputError:
        raise
    except Exception as error:  # pickletools raises many kinds on a damaged stream
        raise InputError(
            f"a damaged pickle ({str(error)[:100]})", "an intact one", "fetch the file again"
        ) from error


class _Reader(pickle.Unpickler):
    """Resolves names to stand-ins, made anew for each file so that no file can change them."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        plain_dict = _stand_in(dict, __new__=_empty_new, __init__=_ignore)
        opaque = _stand_in(object, __new__=_plain_new)
        storages: dict[int, tuple[Any, Tensor]] = {}  # each is read once, however often it is named
        self.table: dict[tuple[str, str], Any] = {
            ("torch_utils.persistence", "_reconstruct_persistent_obj"): _call(_record),
            ("dnnlib", "EasyDict"): plain_dict,
            ("dnnlib.util", "EasyDict"): plain_dict,
            ("collections", "OrderedDict"): plain_dict,
            ("builtins", "set"): _call(lambda items=(): items),
            ("torch._utils", "_rebuild_tensor_v2"): _call(_tensor),
            ("torch._utils", "_rebuild_parameter"): _call(lambda data, *_: _typed(Tensor, data)),
            ("torch.storage", "_load_from_bytes"): _call(partial(_storage, storages)),
            ("numpy", "dtype"): _stand_in(object, __new__=_dtype_new),
            ("numpy", "ndarray"): opaque,
        }
        for package in ("numpy.core", "numpy._core"):
            self.table[f"{package}.multiarray", "scalar"] = _call(_scalar)
            self.table[f"{package}.multiarray", "_reconstruct"] = opaque
            self.table[f"{package}.numeric", "_frombuffer"] = opaque

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in; names outside the table are refused."""
        if (module, name) not in self.table:
            raise _Refused(f"{module}.{name}")
        return self.table[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """NVLabs' pickles name nothing outside themselves."""
        raise _Refused("a persistent id")


def _ignore(self: Any, *state: Any) -> None:
    """__setstate__ of all that a pickle can make or name: nothing can be set on it."""


def _stand_in(base: type, **methods: Callable) -> type:
    """A new class, to be made by a pickle."""
    return type("StandIn", (base,), methods | {"__setstate__": _ignore})


def _call(function: Callable) -> Any:
    """A new object, to be called by a pickle."""
    return _stand_in(object, __call__=lambda self, *arguments: function(*arguments))()


def _empty_new(cls: type, *arguments: Any) -> Any:
    """Without arguments, as picklers write it: a copy of another one could be asked for at will."""
    if arguments:
        raise TypeError("a mapping made of another one")
    return dict.__new__(cls)


def _plain_new(cls: type, *arguments: Any) -> Any:
    return object.__new__(cls)


def _dtype_new(cls: type, code: str = "", *arguments: Any) -> Any:
    made: Any = object.__new__(cls)
    made.code = str(code)
    return made


def _typed(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__}, wanted {kind.__name__}")
    return value


def _record(meta: Any) -> Module:
    """What NVLabs' reader would rebuild by running meta["module_src"]."""
    meta = _typed(dict, meta)
    return Module(_typed(str, meta["class_name"]), _typed(dict, meta["state"]))


def _storage(known: dict[int, tuple[Any, Tensor]], content: Any) -> Tensor:
    """A storage, which is a torch file in the file, as a flat tensor."""
    if id(content) in known:
        return known[id(content)][1]
    found = load_plain(_typed(bytes, content))
    if not isinstance(found, torch.storage.TypedStorage):
        raise TypeError(f"{type(found).__name__} in place of a storage")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # typed storages are deprecated, but this is what lies here
        flat = torch.empty(0, dtype=found.dtype).set_(found.untyped())
    if flat.numel() * flat.element_size() > len(content):
        raise ValueError("a storage larger than its bytes")
    known[id(content)] = content, flat
    return flat


def _tensor(flat: Any, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    """A view of a storage, no larger than that."""
    size, stride = tuple(map(int, size)), tuple(map(int, stride))
    if math.prod(size) > _typed(Tensor, flat).numel() or min((*size, *stride, offset, 0)) < 0:
        raise ValueError("a tensor larger than its storage")
    return flat.as_strided(size, stride, int(offset))


def _scalar(dtype: Any, content: bytes = b"") -> Any:
    code = str(getattr(dtype, "code", "")).lstrip("<|=")
    if code not in SCALARS:
        raise TypeError(f"a numpy scalar of type {code}")
    return np.frombuffer(content, code, 1)[0].item()


def _explain(name: str) -> InputError:
    """The error for a refused name, with what the file seems to be where that is known."""
    if name.startswith("dnnlib.tflib"):
        return InputError(
            "a TensorFlow network pickle (StyleGAN, StyleGAN2 or ADA by NVLabs)",
            "a PyTorch one",
            f"convert it first, with {CONVERTER}; this project does not read TensorFlow's",
        )
    return InputError(
        f"a pickle that calls {name}",
        "tensors and plain values only",
        "do not trust it: it is refused, and nothing of it was run; save the state dict alone",
    )
