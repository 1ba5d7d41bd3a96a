"""MobileStyleGAN's published OpenVINO graphs as our named tensors."""

import math

import torch
from torch import Tensor

from pipeline.generators.readers.openvino import Graph
from pipeline.runtime.errors import InputError


def from_openvino(mapping: Graph, synthesis: Graph) -> dict[str, Tensor]:
    """Read the published OpenVINO graphs as our named tensors.

    Names survive the export for the styles, biases and depthwise weights; the pointwise weights
    and the noise maps are anonymous and are found by following the graph from each convolution.
    """
    tensors: dict[str, Tensor] = {}
    for i, node in enumerate(mapping.operations("MatMul")):
        tensors[f"mlp.{i}.weight"] = mapping.constant_input(node)
        tensors[f"mlp.{i}.bias"] = mapping.constant_input(mapping.consumer(node, "Add")).flatten()
    tensors["const"] = synthesis.named("m.input.input")
    convolutions = synthesis.operations("Convolution")
    blocks = (len(convolutions) - 2) // 2
    names = ["conv", *(f"layers.{b}.conv{k}" for b in range(blocks) for k in (1, 2)), "to_img"]
    if len(names) != len(convolutions) or blocks < 1:
        raise InputError(
            f"a graph of {len(convolutions)} convolutions",
            "2 + 2 per block",
            "check that the file is MobileStyleGAN's synthesis network",
        )

    def put(name: str, prefix: str) -> None:
        weight, bias = (synthesis.named(f"{prefix}.{part}") for part in ("weight", "bias"))
        tensors[f"{name}.affine.weight"], tensors[f"{name}.affine.bias"] = weight, bias.flatten()
        tensors[f"{name}.gain"] = synthesis.style_gain(f"{prefix}.bias")

    for name, node in zip(names, convolutions, strict=True):
        source = {"conv": "m.conv1", "to_img": f"m.layers.{blocks - 1}.to_img"}.get(
            name, f"m.{name}"
        )
        put(
            "to_img_modulation" if name == "to_img" else f"{name}.modulation",
            f"{source}.conv.modulation",
        )
        conv = "to_img" if name == "to_img" else f"{name}.conv"
        tensors[f"{conv}.weight"] = synthesis.constant_input(node)
        tensors[f"{conv}.bias"] = synthesis.named(f"{source}.bias").flatten()
        if name != "to_img":
            tensors[f"{name}.noise"] = synthesis.constant_input(synthesis.consumer(node, "Add"))
        if name.startswith("layers"):
            depthwise = synthesis.named(f"{source}.conv.weight_dw")
            tensors[f"{name}.depthwise.weight"] = depthwise.flatten(1, 2)
    for b in range(blocks):
        put(f"layers.{b}.up", f"m.layers.{b}.up.modulation")
    _check_wavelets(synthesis)
    return {name: value.clone() for name, value in tensors.items()}


def _check_wavelets(graph: Graph) -> None:
    """The upsampling that we coded must be the one in the file: Haar, entries +-sqrt(1/2)."""
    for node in graph.operations("GroupConvolutionBackpropData"):
        if not torch.allclose(graph.constant_input(node).abs(), torch.tensor(math.sqrt(0.5))):
            raise InputError(
                f"wavelet {node.name} that is not Haar", "Haar filters", "check the file"
            )
