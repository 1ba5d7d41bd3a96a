"""State dicts of other repositories become our families': names, axes, and constant factors.

The factors that those networks apply at run time are folded into the weights: equalized learning
rates (a weight is stored times sqrt(fan in) / gain), the mapping's learning rate of 1/100, gains of
activations, and the 1 that a style's bias lacks in GenForce's files.
"""

import math

import torch
from torch import Tensor

from pipeline.generators.layers import MAX_BLOCKS
from pipeline.generators.stylegan import FUSED_FROM
from pipeline.generators.stylegan2 import upsampling_filter
from pipeline.runtime.errors import InputError

Tensors = dict[str, Tensor]

MAPPING_RATE = 0.01  # of the mapping network's learning rate to the others', in all of these
ROOT2 = math.sqrt(2)


def _scaled(weight: Tensor, gain: float = 1.0) -> Tensor:
    """An equalized weight as it acts: times gain / sqrt(fan in), all axes but the first."""
    return weight.float() * (gain / math.sqrt(weight[0].numel()))


def _mapping(
    tensors: Tensors,
    name: str,  # of a layer, with {} for its number
    gain: float,
    bias_gain: float,
    first: int = 0,  # number of the first layer
) -> Tensors:
    """`mlp.*` from all layers of a mapping network."""
    found, depth = {}, 0
    while f"{(layer := name.format(depth + first))}.weight" in tensors:
        found[f"mlp.{depth}.weight"] = _scaled(tensors[f"{layer}.weight"], gain * MAPPING_RATE)
        found[f"mlp.{depth}.bias"] = tensors[f"{layer}.bias"].float() * (bias_gain * MAPPING_RATE)
        depth += 1
    if not depth:
        raise InputError(f"tensors without {layer}", "a mapping network", "check the file")
    return found


def _levels(tensors: Tensors, name: str) -> int:
    """How many of `name`, with {} for 0, 1, 2 ..., there are: the number of resolutions."""
    levels = 0
    while name.format(levels) in tensors and levels <= MAX_BLOCKS:
        levels += 1
    if not 1 <= levels <= MAX_BLOCKS:
        raise InputError(
            f"{levels} resolutions ({name.format(0)} ...)", "4 to 1024 px", "check the file"
        )
    return levels


def _fuse(kernel: Tensor) -> Tensor:
    """A 3x3 kernel as the 4x4 one of a transposed convolution: the sum over four shifts."""
    wide = torch.nn.functional.pad(kernel, (1, 1, 1, 1))
    return wide[..., 1:, 1:] + wide[..., :-1, 1:] + wide[..., 1:, :-1] + wide[..., :-1, :-1]


def _styled_conv(
    index: int,
    weight: Tensor,  # [out, in, 3, 3]; not flipped where a transposed convolution takes it
    bias: Tensor,
    strength: Tensor,
    noise: Tensor,
    affine: tuple[Tensor, Tensor],
) -> Tensors:
    """StyleGAN2's `layers.<index>.*`, with sqrt 2 in bias and strength; odd layers upsample."""
    kernel = _scaled(weight)
    return {
        f"layers.{index}.weight": kernel.transpose(0, 1) if index % 2 else kernel,
        f"layers.{index}.bias": bias.float() * ROOT2,
        f"layers.{index}.noise.strength": strength.float().reshape(1) * ROOT2,
        f"layers.{index}.noise.map": noise.float().reshape(1, 1, *noise.shape[-2:]),
        f"layers.{index}.affine.weight": _scaled(affine[0]),
        f"layers.{index}.affine.bias": affine[1].float(),
    }


def _to_rgb(index: int, weight: Tensor, bias: Tensor, affine: tuple[Tensor, Tensor]) -> Tensors:
    """StyleGAN2's `to_rgb.<index>.*`."""
    weight = weight.flatten(1)  # [3, in, 1, 1]
    return {
        f"to_rgb.{index}.weight": _scaled(weight),
        f"to_rgb.{index}.bias": bias.float().flatten(),
        f"to_rgb.{index}.affine.weight": _scaled(affine[0]),
        f"to_rgb.{index}.affine.bias": affine[1].float(),
    }


def _check_filters(tensors: Tensors, ending: str) -> None:
    """All low-pass filters must be the one that we coded."""
    for name, value in tensors.items():
        if name.endswith(ending):
            given, ours = value.float().squeeze(), upsampling_filter().squeeze() / 4
            if given.shape != ours.shape or not torch.allclose(given / given.sum(), ours):
                raise InputError(f"filter {name}", "[1, 3, 3, 1]", "use another network")


def stylegan2_from_nvlabs(tensors: Tensors) -> Tensors:
    """NVLabs' stylegan2-ada-pytorch and stylegan3 repositories (`synthesis.b4.conv1.*`)."""
    _check_filters(tensors, "resample_filter")
    levels = 0
    while f"synthesis.b{4 * 2**levels}.conv1.weight" in tensors and levels <= MAX_BLOCKS:
        levels += 1
    found = {"const": tensors["synthesis.b4.const"][None].float()}
    for level in range(levels):
        block = f"synthesis.b{4 * 2**level}"
        if f"{block}.skip.weight" in tensors or f"{block}.torgb.weight" not in tensors:
            resnet = any(name.endswith(".skip.weight") for name in tensors)
            raise InputError(
                f"a StyleGAN2 of architecture {'resnet' if resnet else 'orig'} (at {block})",
                "architecture skip: a ToRGB in each block",
                "use another network; this one is intact, but is not supported",
            )
        for k in (0, 1)[level == 0 :]:
            conv = f"{block}.conv{k}"
            if f"{conv}.noise_strength" not in tensors:
                raise InputError(f"{conv} without noise", "use_noise", "use another network")
            found |= _styled_conv(
                2 * level - 1 + k,
                tensors[f"{conv}.weight"],
                tensors[f"{conv}.bias"],
                tensors[f"{conv}.noise_strength"],
                tensors[f"{conv}.noise_const"],
                (tensors[f"{conv}.affine.weight"], tensors[f"{conv}.affine.bias"]),
            )
        rgb = f"{block}.torgb"
        affine = tensors[f"{rgb}.affine.weight"], tensors[f"{rgb}.affine.bias"]
        found |= _to_rgb(level, tensors[f"{rgb}.weight"], tensors[f"{rgb}.bias"], affine)
    found |= _mapping(tensors, "mapping.fc{}", ROOT2, ROOT2)
    found |= {name: tensors[name] for name in ("conv_clamp",) if name in tensors}
    return found | _average(tensors, "mapping.w_avg")


def fix_class(tensors: Tensors, class_idx: int | None) -> Tensors:
    """NVLabs' conditional mapping at one class, as an unconditional one.

    The first layer reads [norm(z), norm(E c)]; with c fixed, its second half is a constant, which
    moves into the bias.
    """
    embed = tensors.get("mapping.embed.weight")
    classes = 0 if embed is None else embed.shape[1]
    if class_idx is not None and not 0 <= class_idx < classes:
        have = f"a network of {classes} classes" if classes else "a network without classes"
        wanted = f"0 to {classes - 1}" if classes else "no class_idx"
        raise InputError(f"class_idx {class_idx} and {have}", wanted, "change class_idx")
    if embed is None:
        return tensors
    if class_idx is None:
        raise InputError(
            f"a network of {classes} classes", f"a class_idx, 0 to {classes - 1}", "choose a class"
        )
    condition = _scaled(embed)[:, class_idx] + tensors["mapping.embed.bias"].float()
    condition = condition * (condition.square().mean() + 1e-8).rsqrt()
    weight, bias = tensors["mapping.fc0.weight"].float(), tensors["mapping.fc0.bias"].float()
    fan_in, z_dim = weight.shape[1], weight.shape[1] - len(condition)
    if z_dim < 1:
        raise InputError(f"an embedding of {len(condition)}", f"less than {fan_in}", "check it")
    # w = fc(weight / sqrt(fan in) [z, c] rate + bias rate); _scaled divides by sqrt(z_dim) later.
    shift = weight[:, z_dim:] @ condition / math.sqrt(fan_in)
    kept = {k: v for k, v in tensors.items() if not k.startswith("mapping.embed.")}
    return kept | {
        "mapping.fc0.weight": weight[:, :z_dim] * math.sqrt(z_dim / fan_in),
        "mapping.fc0.bias": bias + shift,
    }


def stylegan2_from_genforce(tensors: Tensors) -> Tensors:
    """GenForce (`synthesis.early_layer.const`); its transposed convolutions flip the kernel."""
    _check_filters(tensors, "kernel")
    _refuse_labels(tensors)
    levels = _levels(tensors, "synthesis.output{}.weight")
    found = {"const": tensors["synthesis.early_layer.const"].float()}
    for index in range(2 * levels - 1):
        name = f"synthesis.layer{index}"
        weight = tensors[f"{name}.weight"]
        found |= _styled_conv(
            index,
            weight.flip(2, 3) if index % 2 else weight,
            tensors[f"{name}.bias"],
            tensors[f"{name}.noise_strength"],
            tensors[f"{name}.noise"],
            (tensors[f"{name}.style.weight"], tensors[f"{name}.style.bias"] + 1),
        )
    for level in range(levels):
        name = f"synthesis.output{level}"
        affine = tensors[f"{name}.style.weight"], tensors[f"{name}.style.bias"] + 1
        found |= _to_rgb(level, tensors[f"{name}.weight"], tensors[f"{name}.bias"], affine)
    found |= _mapping(tensors, "mapping.dense{}", ROOT2, ROOT2)
    return found | _average(tensors, "truncation.w_avg")


def stylegan2_from_rosinality(tensors: Tensors) -> Tensors:
    """rosinality's stylegan2-pytorch (`g_ema`), with its `latent_avg` if the file has it."""
    _check_filters(tensors, "kernel")
    levels = 1 + _levels(tensors, "to_rgbs.{}.conv.weight")
    found = {"const": tensors["input.input"].float()}
    drawn = not has_noise(tensors)
    for index in range(2 * levels - 1):
        name = "conv1" if index == 0 else f"convs.{index - 1}"
        modulation = f"{name}.conv.modulation"
        found |= _styled_conv(
            index,
            tensors[f"{name}.conv.weight"][0],
            tensors[f"{name}.activate.bias"],
            tensors[f"{name}.noise.weight"],
            _drawn_noise(index) if drawn else tensors[f"noises.noise_{index}"],
            (tensors[f"{modulation}.weight"], tensors[f"{modulation}.bias"]),
        )
    for level in range(levels):
        name = "to_rgb1" if level == 0 else f"to_rgbs.{level - 1}"
        modulation = f"{name}.conv.modulation"
        affine = tensors[f"{modulation}.weight"], tensors[f"{modulation}.bias"]
        found |= _to_rgb(level, tensors[f"{name}.conv.weight"][0], tensors[f"{name}.bias"], affine)
    found |= _mapping(tensors, "style.{}", ROOT2, ROOT2, first=1)  # 0 is the pixel norm
    return found | _average(tensors, "latent_avg")


def has_noise(tensors: Tensors) -> bool:
    """Whether a rosinality file holds its noise maps; early ones do not."""
    return any(name.startswith("noises.") for name in tensors)


def _drawn_noise(index: int) -> Tensor:
    """The noise map of a layer, unit normal, the same in every conversion."""
    side = 4 * 2 ** ((index + 1) // 2)
    return torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(index))


def stylegan_from_genforce(tensors: Tensors) -> Tensors:
    """GenForce (`synthesis.layer0.const`): gains sqrt 2 lie in the weights, not the activations."""
    _refuse_labels(tensors)
    _refuse_growth(tensors.get("synthesis.lod"))
    levels = _levels(tensors, "synthesis.output{}.weight")
    found = {"layers.0.const": tensors["synthesis.layer0.const"].float()}
    for index in range(2 * levels):
        name, ours = f"synthesis.layer{index}", f"layers.{index}"
        if index:
            kernel = _scaled(tensors[f"{name}.weight"], ROOT2)
            fused = index % 2 == 0 and 4 * 2 ** (index // 2) >= FUSED_FROM
            found[f"{ours}.weight"] = _fuse(kernel).transpose(0, 1) if fused else kernel
        noise = tensors[f"{name}.apply_noise.noise"]
        found[f"{ours}.bias"] = tensors[f"{name}.bias"].float()
        found[f"{ours}.noise.strength"] = tensors[f"{name}.apply_noise.weight"].float()
        found[f"{ours}.noise.map"] = noise.float()
        found[f"{ours}.affine.weight"] = _scaled(tensors[f"{name}.style.weight"])
        found[f"{ours}.affine.bias"] = tensors[f"{name}.style.bias"].float()
    last = f"synthesis.output{levels - 1}"
    found["to_rgb.weight"] = _scaled(tensors[f"{last}.weight"])
    found["to_rgb.bias"] = tensors[f"{last}.bias"].float()
    found |= _mapping(tensors, "mapping.dense{}", ROOT2, 1.0)
    return found | _average(tensors, "truncation.w_avg")


def tells_fused(tensors: Tensors) -> bool | None:
    """Whether a GenForce PGGAN upsamples by transposed convolutions; None: no kernel tells."""
    ups = [f"layer{i}" for i in range(2, 40, 2) if f"layer{i}.weight" in tensors]
    shapes = [(tensors[f"{up}.weight"].shape, len(tensors[f"{up}.bias"])) for up in ups]
    uneven = [shape[0] != out for shape, out in shapes if shape[0] != shape[1]]
    return any(uneven) if uneven else None


def pggan_from_genforce(tensors: Tensors, fused: bool | None = None) -> Tensors:
    """GenForce's PGGAN (`layer0.weight`): the first layer is a padded convolution of one pixel.

    Networks with `fused_scale` store the kernels that double the resolution as [in, out, 3, 3];
    where the width changes, a kernel that does not fit its bias tells. Where no width changes,
    `fused` says; None: not fused.
    """
    _refuse_growth(tensors.get("lod"))
    levels = _levels(tensors, "output{}.weight")
    ups = [f"layer{index}" for index in range(2, 2 * levels, 2)]
    told = tells_fused(tensors)
    if None not in (told, fused) and told != fused:
        raise InputError(
            f"fused {fused} of a PGGAN whose kernels are {'' if told else 'not '}fused",
            f"fused {told}, or none",
            "leave fused out",
        )
    fused = bool(told if fused is None else fused)
    first = _scaled(tensors["layer0.weight"], ROOT2)  # [out, z, 4, 4]
    found = {"layers.0.weight": first.flip(2, 3).permute(0, 2, 3, 1)}
    for index in range(2 * levels):
        name = f"layer{index}"
        found[f"layers.{index}.bias"] = tensors[f"{name}.bias"].float()
        if index:
            kernel = tensors[f"{name}.weight"]
            if fused and name in ups:  # fan in is that of the inputs, which are the first axis
                found[f"layers.{index}.weight"] = _fuse(_scaled(kernel.transpose(0, 1), ROOT2))
                found[f"layers.{index}.weight"] = found[f"layers.{index}.weight"].transpose(0, 1)
            else:
                found[f"layers.{index}.weight"] = _scaled(kernel, ROOT2)
    found["to_rgb.weight"] = _scaled(tensors[f"output{levels - 1}.weight"])
    found["to_rgb.bias"] = tensors[f"output{levels - 1}.bias"].float()
    return found | {"w_avg": torch.zeros(first.shape[1])}


def _average(tensors: Tensors, name: str) -> Tensors:
    """{w_avg} if the file has it; without it, it is measured."""
    return {"w_avg": tensors[name].float().flatten()} if name in tensors else {}


def _refuse_labels(tensors: Tensors) -> None:
    if "mapping.label_weight" in tensors:
        raise InputError("a conditional GenForce network", "one without labels", "use another one")


def _refuse_growth(lod: Tensor | None) -> None:
    if lod is not None and float(lod) != 0:
        raise InputError(f"lod {float(lod)}: a network that still grows", "lod 0", "train it on")
