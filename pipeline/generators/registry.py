"""Generators: one contract, one file per family; from our safetensors or a published checkpoint."""

from pathlib import Path

import torch
from torch import Tensor

from pipeline.generators import dcgan, mobile_stylegan, pggan, stylegan, stylegan2
from pipeline.generators.contract import Generator
from pipeline.generators.importers.foreign import convert_checkpoint
from pipeline.generators.importers.layouts import find_layout, recognize
from pipeline.generators.readers.formats import Checkpoint, read_checkpoint
from pipeline.runtime.devices import channels_last
from pipeline.runtime.errors import InputError, choose, reading

FAMILIES = {
    "dcgan": dcgan.build,
    "pggan": pggan.build,
    "stylegan": stylegan.build,
    "stylegan2": stylegan2.build,
    "mobile_stylegan": mobile_stylegan.build,
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TAP_SETS = ("all", "second_conv")  # second_conv: as the reference, of PGGAN and StyleGAN only


def load_generator(
    path: str | Path,
    family: str | None = None,  # None: as the file says
    device: str | torch.device = "cpu",
    dtype: str = "float32",  # what synthesis computes in; the mapping stays float32
    class_idx: int | None = None,  # of a conditional network
    taps: str | None = None,  # all or second_conv; None: as the file says, else all
    fused: bool | None = None,  # of a GenForce PGGAN whose widths do not tell; None: not fused
) -> Generator:
    """Load a frozen generator, channels-last, from our safetensors or any supported checkpoint.

    A file of another project (GenForce, rosinality, NVLabs: see docs/studies.md) is converted on
    the way; fetch_checkpoint does that once for a study.
    """
    tensors, facts = read_generator(path, family, class_idx, fused)
    compute = DTYPES[choose("dtype", dtype, DTYPES)]
    family = choose("family", facts["family"], FAMILIES)
    network = _build(path, family, tensors)
    if check_tap_set(family, taps or facts.get("tap_set", "all")) == "second_conv":
        network.taps = tuple(tap for tap in network.taps if tap.name.endswith("_conv2"))
    network = channels_last(network.eval().requires_grad_(False).to(device))
    if compute is torch.bfloat16:
        _cast_synthesis(network, compute)
    return network


def _build(path: str | Path, family: str, tensors: dict[str, Tensor]) -> Generator:
    """The network of a family's tensors; InputError names the file."""
    with reading(path, f"a whole {family}", "fetch it again, or name another family"):
        try:
            return FAMILIES[choose("family", family, FAMILIES)](tensors)
        except KeyError as error:
            some = ", ".join(list(tensors)[:6]) or "no tensor"
            raise InputError(
                f"{path}, which lacks tensor {error} (it has {some} ...)",
                f"a {family} checkpoint",
                "fetch it again, or name another family",
            ) from error


def read_generator(
    path: str | Path,
    family: str | None = None,  # None: as the file says
    class_idx: int | None = None,  # of a conditional network
    fused: bool | None = None,  # of a GenForce PGGAN
) -> tuple[dict[str, Tensor], dict]:
    """Tensors under our names, and facts, among them the family, from any supported file."""
    with reading(
        path,
        "a generator's checkpoint of a layout of docs/studies.md",
        "fetch the file again, or save its state dict alone",
    ):
        checkpoint = read_checkpoint(path)
        ours = checkpoint.format == "safetensors" and find_layout(checkpoint.tensors) is None
        if ours:
            facts = _own_facts(checkpoint, family, class_idx, fused)
            if "family" not in checkpoint.facts:
                _check_family(path, facts["family"], checkpoint.tensors)
            return checkpoint.tensors, facts
        tensors, facts = convert_checkpoint(checkpoint, FAMILIES, class_idx, fused)
    if family not in (None, facts["family"]):
        raise InputError(f"{path}, a {facts['family']}", f"a {family}", "change family")
    return tensors, facts


def _check_family(path: str | Path, family: str, tensors: dict[str, Tensor]) -> None:
    """InputError for tensors that do not make the family that a user named."""
    try:
        _build(path, family, tensors)
    except InputError:
        recognize(tensors)  # says what was found, and the nearest layout
        raise


def _own_facts(
    checkpoint: Checkpoint, family: str | None, class_idx: int | None, fused: bool | None
) -> dict:
    """The facts of a file of ours, with the family: `family`, else as they say."""
    if class_idx is not None:
        raise InputError("a network without classes", "no class_idx", "leave class_idx out")
    if fused is not None:
        raise InputError("fused for a file that tells by itself", "no fused", "leave fused out")
    facts = checkpoint.facts
    if family is None and "family" not in facts:
        recognize(checkpoint.tensors)
    return facts | ({} if family is None else {"family": choose("family", family, FAMILIES)})


def check_tap_set(family: str, tap_set: str) -> str:
    """The set of taps, if the family has it."""
    if choose("taps", tap_set, TAP_SETS) == "second_conv" and family not in ("pggan", "stylegan"):
        raise InputError(
            f"taps second_conv of a {family}",
            "a pggan or stylegan, of which the reference reads second convolutions only",
            "use taps: all",
        )
    return tap_set


def _cast_synthesis(network: Generator, dtype: torch.dtype) -> None:
    """Cast all but the mapping network and w_avg."""
    for name, part in network.named_children():
        if name != "mlp":
            part.to(dtype)
    for name, parameter in network.named_parameters(recurse=False):
        setattr(network, name, torch.nn.Parameter(parameter.to(dtype), requires_grad=False))
