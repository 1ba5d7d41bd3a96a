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
    translate: Callable[..., Tensors]
    spare: str  # regular expression of tensors that are not needed
    colors: tuple[str, int]  # regular expression of a weight that gives colors, its color axis
    constant: str | None = None  # the learned constant, [..., 4, 4]

    def check(self, tensors: Tensors) -> None:
        """InputError for an intact network of other colors, or of images that are not square."""
        pattern, axis = self.colors
        for name, value in tensors.items():
            if not re.fullmatch(pattern, name) or value.ndim <= axis:
                continue
            if (count := value.shape[axis]) in (1, 2, 4):
                raise InputError(
                    f"{count} image channel{'s' * (count > 1)} ({name} of {list(value.shape)})",
                    "3: a generator of RGB images",
                    "use a network of RGB images; this one is intact, but is not supported",
                )
        constant = tensors.get(self.constant or "")
        if constant is not None and constant.ndim >= 3 and 0 not in constant.shape:
            height, width = constant.shape[-2:]
            if (height, width) != (4, 4):
                raise InputError(
                    f"a constant of {height} x {width} px ({self.constant})",
                    "4 x 4: square images of 4 to 1024 px",
                    "use another network; this one is intact, but is not supported",
                )

    def read(self, tensors: Tensors, **options: bool | None) -> Tensors:
        """Our tensors; InputError if one of theirs is left over, as where a part is missing."""
        given = _Tracked(tensors)
        found = self.translate(given, **options)
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
        (r"synthesis\.b\d+\.torgb\.weight", 0),
        "synthesis.b4.const",
    ),
    Layout(
        "GenForce",
        "stylegan2",
        ("synthesis.early_layer.const",),
        translations.stylegan2_from_genforce,
        r".*(filter|upsample)\.kernel",
        (r"synthesis\.output\d\.weight", 0),
        "synthesis.early_layer.const",
    ),
    Layout(
        "GenForce",
        "stylegan",
        ("synthesis.layer0.const",),
        translations.stylegan_from_genforce,
        r".*\.kernel|synthesis\.lod|synthesis\.output\d\.(weight|bias)",
        (r"synthesis\.output\d\.weight", 0),
        "synthesis.layer0.const",
    ),
    Layout(
        "GenForce",
        "pggan",
        ("layer0.weight", "output0.weight"),
        translations.pggan_from_genforce,
        r"lod|output\d\.(weight|bias)",
        (r"output\d\.weight", 0),
    ),
    Layout(
        "rosinality",
        "stylegan2",
        ("input.input", "conv1.conv.weight"),
        translations.stylegan2_from_rosinality,
        r".*\.kernel",
        (r"to_rgbs?[\d.]+conv\.weight", 1),
        "input.input",
    ),
    Layout(
        "PyTorch tutorial",
        "dcgan",
        ("main.0.weight", "main.12.weight"),
        dcgan.from_torch_names,
        r".*num_batches_tracked",
        (r"main\.12\.weight", 1),
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
    seems = next((what for mark, what in OTHERS.items() if _holds(tensors, mark)), None)
    some = ", ".join(list(tensors)[:6]) or "no tensor"
    known = sorted({f"{layout.family} ({layout.source})" for layout in LAYOUTS})
    near = nearest(tensors)
    lacking = [mark for mark in near.marks if mark not in tensors] if near else []
    close = f"; nearest: {near.family} ({near.source}), without {lacking[0]}" if near else ""
    raise InputError(
        f"what seems to be {seems} ({some} ...)"
        if seems
        else f"a network of unknown names ({some} ...{close})",
        f"one of {', '.join(known)}",
        "convert it to one of these layouts, or add a family (docs/studies.md)",
    )


def _holds(tensors: Tensors, mark: str) -> bool:
    """Whether a mark is there; a long one, which is no chance, behind any prefix, too."""
    return mark in tensors or (
        mark.count(".") > 1 and any(name.endswith("." + mark) for name in tensors)
    )


def nearest(tensors: Tensors) -> Layout | None:
    """The layout that shares most steps of names with the tensors; None if it is few."""
    steps = {step for name in tensors for step in name.split(".")[:-1] if not step.isdigit()}
    shared = {
        i: len(steps & {s for mark in layout.marks for s in mark.split(".")[:-1]} - {"main"})
        for i, layout in enumerate(LAYOUTS)
    }
    best = max(shared, key=lambda i: shared[i])
    return LAYOUTS[best] if shared[best] else None
