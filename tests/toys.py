"""Small instances of the real classes: random generators, latents, masks and a teacher on disk."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.data.arrays import write_group
from pipeline.data.images import to_float
from pipeline.generators.contract import Generator
from pipeline.generators.dcgan import DCGAN
from pipeline.generators.latents import sample_z, split_seeds
from pipeline.generators.mobile_stylegan import MobileStyleGAN
from pipeline.generators.pggan import PGGAN
from pipeline.generators.registry import FAMILIES, load_generator
from pipeline.generators.stylegan import StyleGAN
from pipeline.generators.stylegan2 import StyleGAN2
from pipeline.runtime.weights import write_safetensors
from pipeline.teachers.networks import NETWORKS

SIZES = {"train": 5, "validation": 2, "test": 3, "pool": 1}
CLASSES = ("bg", "skin", "nose", "hair")


def randomize(network: torch.nn.Module, seed: int, power: float = 1.5) -> torch.nn.Module:
    """Give every weight, bias, gain, noise map and statistic a random value.

    What is zero or one after construction would hide a term that the forward pass forgets. `power`
    is what a weight matrix multiplies the features' power by.
    """
    rng = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if not value.is_floating_point():
            continue
        noise = torch.randn(value.shape, generator=rng)
        if name.endswith(("gain", "running_var")):
            value.copy_(noise.mul(0.3).exp())
        elif value.ndim >= 2 and name.endswith("weight"):
            value.copy_(noise * (power / value[0].numel()) ** 0.5)
        else:  # biases, noise maps, the constant, averages
            value.copy_(noise * 0.5)
    return network


def toy_network(family: str) -> Generator:
    """A 32 px generator of `family`; all its widths differ, so a mixed-up axis cannot pass."""
    networks = {
        "dcgan": lambda: DCGAN(z_dim=10, widths=(16, 12, 8, 6), stem=2),
        "mobile_stylegan": lambda: MobileStyleGAN((16, 12, 8), z_dim=10, w_dim=14, depth=3),
        "pggan": lambda: PGGAN((16, 12, 8, 6), z_dim=10),
        "stylegan": lambda: StyleGAN((16, 12, 8, 6), (10, 9, 14), fused_from=32),
        "stylegan2": lambda: StyleGAN2((16, 12, 8, 6), (10, 9, 14)),
    }
    assert networks.keys() == FAMILIES.keys(), "a family without a toy"
    power = {"mobile_stylegan": 0.5}.get(family, 1.5)  # its modulations multiply, too
    network = randomize(networks[family](), len(family), power)
    return network.eval().requires_grad_(False)


def write_generator(path: Path, family: str) -> Path:
    """A toy checkpoint with the facts that a converted one has."""
    network = toy_network(family)
    tensors = dict(network.state_dict())
    if family == "dcgan":  # published files carry neither
        tensors = {k: v for k, v in tensors.items() if "num_batches" not in k and k != "w_avg"}
    facts = {
        "family": family,
        "license": "none",
        "resolution": network.resolution,
        "num_ws": network.num_ws,
        "taps": [vars(tap) for tap in network.taps],
    }
    write_safetensors(path, tensors, facts)
    return path


def write_latents(path: Path, checkpoint: Path, sizes: dict[str, int] = SIZES) -> Path:
    """Seeds, z and ws of all splits."""
    generator, arrays = load_generator(checkpoint), {}
    for split, seeds in split_seeds(sizes, 1).items():
        z = sample_z(seeds, generator.z_dim)
        ws = generator.mapping(torch.from_numpy(z), 0.7).numpy()
        arrays |= {f"{split}/seeds": seeds, f"{split}/z": z, f"{split}/ws": ws}
    write_group(path, arrays, {"truncation_psi": 0.7, "seed": 1})
    return path


def write_masks(path: Path, size: int = 32, sizes: dict[str, int] = SIZES) -> Path:
    """Random rectangles of the toy classes."""
    rng, arrays = np.random.default_rng(0), {}
    for split, count in sizes.items():
        masks = np.zeros((count, size, size), np.uint8)
        for mask in masks:
            for label in range(1, len(CLASSES)):
                top, left = rng.integers(0, size - 8, 2)
                mask[top : top + 8, left : left + 8] = label
        arrays[f"{split}/masks"] = masks
    write_group(path, arrays, {"classes": list(CLASSES)})
    return path


def teacher_tensors(architecture: str = "unet", seed: int = 0) -> dict[str, Tensor]:
    """Random weights of a teacher of 19 classes, in half precision as training writes them."""
    network = randomize(NETWORKS[architecture](19), seed)
    return {name: value.half() for name, value in network.state_dict().items()}


def teacher_of_many_classes(path: Path, images: np.ndarray, seed: int = 0) -> Path:
    """A random UNet whose logits vary about zero on these images, so that no class wins all."""
    network = NETWORKS["unet"](19)
    network.load_state_dict({k: v.float() for k, v in teacher_tensors("unet", seed).items()})
    network.eval()
    with torch.inference_mode():
        logits = network(torch.nn.functional.interpolate(to_float(images), (256, 256)))
        logits = torch.nn.functional.interpolate(
            logits, (32, 32), mode="bilinear", align_corners=False, antialias=True
        )
        spread, mean = logits.std((0, 2, 3)), logits.mean((0, 2, 3))
        network.head.bias.sub_(mean).div_(spread)
        network.head.weight.div_(spread[:, None, None, None])
    write_safetensors(path, dict(network.state_dict()), {"architecture": "unet"})
    return path
