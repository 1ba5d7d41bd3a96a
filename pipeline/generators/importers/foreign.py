"""Checkpoints of other projects, converted to our named tensors and facts."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from pipeline.generators.contract import Generator
from pipeline.generators.importers.layouts import Layout, recognize
from pipeline.generators.importers.translations import fix_class, has_noise, tells_fused
from pipeline.generators.latents import sample_z
from pipeline.generators.readers.formats import Checkpoint
from pipeline.runtime.errors import InputError
from pipeline.runtime.progress import say

W_AVG_SAMPLES = 10_000
# What a tensor of another shape or type raises in a conversion, besides our own InputError.
DAMAGE = (LookupError, RuntimeError, TypeError, ValueError, AttributeError, ArithmeticError)


def convert_checkpoint(
    checkpoint: Checkpoint,
    builders: Mapping[str, Callable[[dict], Generator]],  # by family
    class_idx: int | None = None,  # of a conditional network; None: it has no classes
    fused: bool | None = None,  # of a PGGAN of equal widths, which does not tell; None: not
) -> tuple[dict[str, Tensor], dict]:
    """Tensors under our names, and facts; InputError if the network is none that we know."""
    layout = recognize(checkpoint.tensors)
    try:
        layout.check(checkpoint.tensors)
        options = {"fused": fused} if layout.family == "pggan" else {}
        if fused is not None and not options:
            raise InputError(f"fused of a {layout.family}", "no fused", "leave fused out")
        tensors = layout.read(fix_class(checkpoint.tensors, class_idx), **options)
        tensors = {name: value.contiguous() for name, value in tensors.items()}
        network = builders[layout.family](measured_average(tensors, builders[layout.family]))
    except InputError:
        raise
    except DAMAGE as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise InputError(
            f"tensors that no {layout.family} has ({reason})",
            f"a whole {layout.family} of {layout.source}",
            "fetch the file again",
        ) from error
    for line in _assumed(checkpoint, layout, fused):
        say(line)
    facts = facts_of(network) | {"layout": layout.source, "format": checkpoint.format}
    return tensors, facts | ({} if class_idx is None else {"class_idx": class_idx})


def _assumed(checkpoint: Checkpoint, layout: Layout, fused: bool | None) -> Iterator[str]:
    """What a file does not tell and was assumed, a line each."""
    if checkpoint.part.rpartition(" / ")[2] in ("g", "netG", "GAN"):
        yield f"read the generator under {checkpoint.part!r}: no average of its weights was found"
    if layout.source == "rosinality" and not has_noise(checkpoint.tensors):
        yield "the file holds no noise maps: they were drawn, from seeds 0, 1, 2 ... by layer"
    if layout.family == "pggan" and fused is None and tells_fused(checkpoint.tensors) is None:
        yield "a PGGAN of equal widths does not tell whether it is fused: assumed not; see `fused`"


def facts_of(network: Generator) -> dict:
    """What a converted file says about its network."""
    return {
        "family": network.family,
        "resolution": network.resolution,
        "num_ws": network.num_ws,
        "taps": [vars(tap) for tap in network.taps],
    }


def measured_average(
    tensors: dict[str, Tensor],  # gets w_avg if the family has a mapping network and it is missing
    builder: Callable[[dict], Generator],
) -> dict[str, Tensor]:
    """The tensors, with w_avg: the mean of w over 10,000 z with seeds 0-9,999.

    It is summed in float64 and so the same everywhere to float32 rounding.
    """
    if "w_avg" not in tensors and "mlp.0.weight" in tensors:
        last = max(int(n.split(".")[1]) for n in tensors if n.startswith("mlp."))
        tensors["w_avg"] = torch.zeros(len(tensors[f"mlp.{last}.weight"]))
        network = builder(tensors).double().eval()
        z = torch.from_numpy(sample_z(range(W_AVG_SAMPLES), network.z_dim)).double()
        with torch.inference_mode():
            tensors["w_avg"] = network.style(z).mean(0).float()
    return tensors
