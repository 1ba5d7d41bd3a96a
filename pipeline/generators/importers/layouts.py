"""Where a state dict comes from: recognized by the names of its tensors, or refused by name."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from pipeline.generators import dcgan
from pipeline.generators.importers import translations
from pipeline.generators.importers.translations import Tensors
from pipeline.runtime.errors import InputError


@dataclass(frozen=True)
class Layout:
    """Where a state dict comes from, how it is recognized, and how it becomes ours."""

    source: str
    family: str
    marks: tuple[str, ...]  # tensors that it has
    translate: Callable[[Tensors], Tensors]
    spare: str  # regular expression of tensors that are not needed

    def read(self, tensors: Tensors) -> Tensors:
        """Our tensors; InputError if one of theirs is left over, as where a part is missing."""
        given = _Tracked(tensors)
        found = self.translate(given)
        left = [name for name in tensors if name not in given.used]
        if left := [name for name in left if not re.fullmatch(self.spare, name)]:
            raise InputError(
                f"{len(left)} tensors that fit nowhere ({', '.join(left[:3])} ...)",
                f"a whole {self.family} of {self.source}",
                "check that the file is intact and that nothing was added to the network",
            )
        return found


class _Tracked(dict):
    """Tensors that remember which were read; they must be floating point."""

    def __init__(self, tensors: Tensors):
        super().__init__(tensors)
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.used.add(name)
        value = super().__getitem__(name)
        if not value.is_floating_point():
            raise InputError(f"tensor {name} of {value.dtype}", "floating point", "check the file")
        return value


LAYOUTS = (
    Layout(
        "NVLabs",
        "stylegan2",
        ("synthesis.b4.const", "mapping.fc0.weight"),
        translations.stylegan2_from_nvlabs,
        r".*resample_filter",
    ),
    Layout(
        "GenForce",
        "stylegan2",
        ("synthesis.early_layer.const",),
        translations.stylegan2_from_genforce,
        r".*(filter|upsample)\.kernel",
    ),
    Layout(
        "GenForce",
        "stylegan",
        ("synthesis.layer0.const",),
        translations.stylegan_from_genforce,
        r".*\.kernel|synthesis\.lod|synthesis\.output\d\.(weight|bias)",
    ),
    Layout(
        "GenForce",
        "pggan",
        ("layer0.weight", "output0.weight"),
        translations.pggan_from_genforce,
        r"lod|output\d\.(weight|bias)",
    ),
    Layout(
        "rosinality",
        "stylegan2",
        ("input.input", "conv1.conv.weight"),
        translations.stylegan2_from_rosinality,
        r".*\.kernel",
    ),
    Layout(
        "PyTorch tutorial",
        "dcgan",
        ("main.0.weight", "main.12.weight"),
        dcgan.from_torch_names,
        r".*num_batches_tracked",
    ),
)

# Names that give other architectures away, for the error that refuses them.
OTHERS = {
    "synthesis.input.freqs": "StyleGAN3",
    "synthesis.b4.fourier.freqs": "a Fourier-input StyleGAN2",
    "time_embed.0.weight": "a diffusion model",
    "model.diffusion_model.time_embed.0.weight": "a latent diffusion model",
    "model.map_layer0.weight": "a diffusion model (EDM)",
    "time_embedding.linear_1.weight": "a diffusion model (diffusers)",
    "shared.weight": "BigGAN",
    "embeddings.weight": "BigGAN",
    "backbone.synthesis.b4.const": "EG3D",
    "b4.out.weight": "a StyleGAN discriminator",
    "final_conv.0.weight": "a StyleGAN2 discriminator (rosinality)",
}


def find_layout(tensors: Tensors) -> Layout | None:
    """The layout of a state dict, if it is one of LAYOUTS."""
    found = (layout for layout in LAYOUTS if all(mark in tensors for mark in layout.marks))
    return next(found, None)


def recognize(tensors: Tensors) -> Layout:
    """The layout of a state dict; InputError says what it seems to be instead."""
    if (layout := find_layout(tensors)) is not None:
        return layout
    seems = next((what for mark, what in OTHERS.items() if mark in tensors), None)
    some = ", ".join(list(tensors)[:3]) or "no tensor"
    known = sorted({f"{layout.family} ({layout.source})" for layout in LAYOUTS})
    raise InputError(
        f"what seems to be {seems}" if seems else f"a network of unknown names ({some} ...)",
        f"one of {', '.join(known)}",
        "convert it to one of these layouts, or add a family (docs/studies.md)",
    )
