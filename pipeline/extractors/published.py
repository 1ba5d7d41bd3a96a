"""Extractors trained by the paper's released code, read as ours."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.extractors.networks import LSE, NSE1, NSE2, Extractor
from pipeline.generators.readers.torchzip import load_plain
from pipeline.generators.taps import Tap
from pipeline.runtime.errors import InputError, choose

TYPES = ("LSE", "NSE-1", "NSE-2")
# How a tap's weight is made from `layer_weight`; the weights are normalized to a sum of 1.
SHARES: dict[str, Callable[[Tensor], Tensor]] = {"softplus": F.softplus, "sigmoid": torch.sigmoid}


def load_published_extractor(
    path: str | Path,
    taps: Sequence[Tap],  # all of the generator; the file says by number which it reads
    classes: Sequence[str] | None = None,  # names; None: class0, class1 ...
) -> Extractor:
    """Read `{"arch": {n_class, dims, layers, type, ...}, "param": tensors}` as data.

    The weights of the taps (LSE and NSE-1) are folded into each tap's last convolution.
    """
    if not Path(path).is_file():
        raise InputError(f"no file at {path}", "an extractor", "check the path")
    value = load_plain(Path(path).read_bytes())
    if not isinstance(value, dict) or not {"arch", "param"} <= value.keys():
        raise InputError(f"{path} without arch and param", "an extractor", "name another file")
    try:
        return _build(value["arch"], dict(value["param"]), taps, classes)
    except (KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(
            f"{path}, whose tensors do not fit ({type(error).__name__} {str(error)[:200]})",
            "an extractor of the paper's code, for this generator",
            "name the generator that it was trained on",
        ) from error


def _build(
    arch: dict, tensors: dict[str, Tensor], taps: Sequence[Tap], classes: Sequence[str] | None
) -> Extractor:
    kind, count = choose("extractor", arch["type"], TYPES), int(arch["n_class"])
    names = tuple(classes or (f"class{i}" for i in range(count)))
    read = [taps[i] for i in arch["layers"]] if len(arch["layers"]) <= len(taps) else list(taps)
    if [tap.channels for tap in read] != list(arch["dims"]) or len(names) != count:
        raise InputError(
            f"{count} classes and taps of {list(arch['dims'])} channels",
            f"{len(names)} classes and {[tap.channels for tap in read]}",
            "name the generator that it was trained on, and all classes",
        )
    shares = _shares(tensors.pop("layer_weight", None), arch.get("lw_type", "none"), len(read))
    extractor = {"LSE": _lse, "NSE-1": _nse1, "NSE-2": _nse2}[kind](names, read, tensors, shares)
    return extractor.eval().requires_grad_(False)


def _shares(weight: Tensor | None, kind: str, count: int) -> Tensor:
    """The weight of each tap; ones for a plain sum."""
    if weight is None or kind == "none":
        return torch.ones(count)
    positive = SHARES[choose("lw_type", kind, ["none", *SHARES])](weight.float())
    return positive / positive.sum()


def _lse(names: tuple, taps: list[Tap], tensors: dict[str, Tensor], shares: Tensor) -> LSE:
    biased = "extractor.0.bias" in tensors
    biases = [tensors[f"extractor.{i}.bias"] for i in range(len(taps) if biased else 0)]
    extractor = LSE(names, taps, bias=biased, align_corners=True)
    extractor.restore(
        {
            f"weights.{tap.name}": share * tensors[f"extractor.{i}.weight"].float().flatten(1)
            for i, (tap, share) in enumerate(zip(taps, shares, strict=True))
        }
        # Interpolation keeps constants, so the taps' biases add up to one.
        | ({"bias": shares @ torch.stack(biases).float()} if biased else {})
    )
    return extractor


def _nse1(names: tuple, taps: list[Tap], tensors: dict[str, Tensor], shares: Tensor) -> NSE1:
    kernel = tensors["extractor.0.0.weight"].shape[-1]
    extractor = NSE1(names, taps, kernel=kernel, align_corners=True)
    found = {}
    for name, value in tensors.items():
        _, index, layer, part = name.split(".")
        factor = shares[int(index)] if layer == "4" else 1.0
        found[f"heads.{index}.{layer}.{part}"] = value.float() * factor
    extractor.load_state_dict(found)
    return extractor


def _nse2(names: tuple, taps: list[Tap], tensors: dict[str, Tensor], shares: Tensor) -> NSE2:
    extractor = NSE2(names, taps, align_corners=True)
    ours = {"extractor": "encoders", "reviser": "revisers", "visualizer": "out"}
    found = {}
    for name, value in tensors.items():
        first, *rest = name.split(".")
        parts = [rest[0], rest[2]] if len(rest) == 3 else rest
        found[".".join([ours[first], *parts])] = value.float()
    extractor.load_state_dict(found)
    return extractor
