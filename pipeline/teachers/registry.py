"""Segmentation teachers behind one contract: float images in, masks of a label space out."""

import copy
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from pipeline.generators.readers.torchzip import load_plain
from pipeline.runtime.devices import channels_last, fast_bfloat16
from pipeline.runtime.errors import InputError, choose, reading
from pipeline.runtime.weights import read_safetensors
from pipeline.teachers.labels import (
    CELEBAMASK19,
    FACE15,
    LABEL_SPACES,
    NATIVE,
    LabelSpace,
    read_space,
)
from pipeline.teachers.networks import NETWORKS, PublishedUNet

INPUT_SIZE = 256
PUBLISHED_SIZE = 512  # px that CelebAMask-HQ's UNet reads
# What its published weights name, by number of classes (the 19 in CelebAMask-HQ's order).
PUBLISHED_CLASSES = {15: FACE15, 19: CELEBAMASK19}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
FILES = (".safetensors", ".pth", ".pt")


class Teacher(nn.Module):
    """A segmentation network read as probabilities of a label space's merged classes."""

    merge: Float[Tensor, "network_class class"]

    def __init__(
        self,
        network: nn.Module,  # [N, 3, H, W] in [-1, 1] to logits
        labels: LabelSpace,
        input_size: int | None = INPUT_SIZE,  # px; None: the network resizes by itself
    ):
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.labels, self.input_size = labels, input_size
        ids = torch.arange(len(labels.classes))  # a dropped class has a row of zeros
        merge = (0, *labels.merge) if labels.zero_logit else labels.merge
        self._quick: list[nn.Module] = []  # the network in bfloat16, made when it is first used
        self.register_buffer("merge", (torch.tensor(merge)[:, None] == ids).float())

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the ids."""
        return self.labels.classes

    def probabilities(
        self, images: Float[Tensor, "sample 3 height width"], size: int
    ) -> Float[Tensor, "sample class size size"]:
        """Class probabilities at `size` px of images in [-1, 1] of any size; differentiable."""
        return self._merged(self.network_logits(images, size))

    def log_probabilities(
        self, images: Float[Tensor, "sample 3 height width"], size: int
    ) -> Float[Tensor, "sample class size size"]:
        """The logarithm of `probabilities`; its gradient does not vanish where they underflow."""
        logs = self._with_zero(self.network_logits(images, size)).log_softmax(1)
        members = [column.nonzero()[:, 0] for column in self.merge.T]
        return torch.stack([logs[:, ids].logsumexp(1) for ids in members], 1)

    def network_logits(
        self, images: Float[Tensor, "sample 3 height width"], size: int
    ) -> Float[Tensor, "sample network_class size size"]:
        """Logits at `size` px of the network's own classes."""
        x, side = images.to(self.merge.device).clamp(-1, 1).float(), self.input_size
        if side is not None and x.shape[-2:] != (side, side):
            x = F.interpolate(x, (side, side), mode="bilinear", align_corners=False, antialias=True)
        logits = self._segment(x.contiguous(memory_format=torch.channels_last)).float()
        if logits.shape[-2:] == (size, size):
            return logits
        return F.interpolate(
            logits, (size, size), mode="bilinear", align_corners=False, antialias=True
        )

    def _segment(self, x: Tensor) -> Tensor:
        """The network's logits; in bfloat16 on a CPU with units for it, if no gradient is taken.

        Masks differ at few pixels, on borders. Gradients stay in float32: without, a search with
        the teacher in the loop finds less. So do models that resize images.
        """
        quick = x.device.type == "cpu" and fast_bfloat16("cpu") and self.input_size is not None
        if not quick or not torch.is_inference_mode_enabled():
            return self.network(x)
        if not self._quick:
            with torch.inference_mode(False):
                network = copy.deepcopy(self.network).to(torch.bfloat16)
                self._quick.append(channels_last(network))
        return self._quick[0](x.to(torch.bfloat16))

    def masks(
        self, logits: Float[Tensor, "sample network_class size size"]
    ) -> UInt8[np.ndarray, "sample size size"]:
        """Masks of class ids from `network_logits`, which teachers of one network share."""
        return self._merged(logits).argmax(1).to(torch.uint8).cpu().numpy()

    def _merged(self, logits: Tensor) -> Tensor:
        return torch.einsum("nchw,cm->nmhw", self._with_zero(logits).softmax(1), self.merge)

    def _with_zero(self, logits: Tensor) -> Tensor:
        """With the zero logit of "none of these" before the network's, if there is one."""
        if not self.labels.zero_logit:
            return logits
        return torch.cat([torch.zeros_like(logits[:, :1]), logits], 1)

    @torch.inference_mode()
    def label(
        self, images: Float[Tensor, "sample 3 height width"], size: int
    ) -> UInt8[np.ndarray, "sample size size"]:
        """Masks of class ids [N, size, size] of images in [-1, 1]."""
        return self.masks(self.network_logits(images, size))


def load_teacher(
    path: str | Path,
    labels: str | Path | None = None,
    device: str | torch.device = "cpu",
    keep: Sequence[str] | None = None,  # selected classes of `labels`; None: all
) -> Teacher:
    """Load a network, read in the label space `labels` (see `labels.read_space`).

    `path` is a file that stages.train_teacher wrote, the published UNet of CelebAMask-HQ (.pth), or
    a folder, or an id on the hub, of a Hugging Face model for semantic segmentation. labels None:
    the paper's 15 classes of a face parser, any other network's own.
    """
    return load_teachers(path, [labels], device, keep)[0]


def load_teachers(
    path: str | Path,
    labels: Sequence[str | Path | None],
    device: str | torch.device = "cpu",
    keep: Sequence[str] | None = None,  # selected classes; None: all
) -> list[Teacher]:
    """One network read in several label spaces, as `load_teacher` reads it in one."""
    with reading(
        path,
        "a teacher's weights, or a Hugging Face model whose files fit each other",
        "fetch it again, or mend the value that is named in its .json files",
    ):
        network, names, input_size = _open(path)
        if input_size is None:  # the model's files say its sizes: do they fit it?
            with torch.inference_mode():
                network(torch.zeros(1, 3, INPUT_SIZE, INPUT_SIZE))
    spaces = [_space(path, network, names, wanted, keep) for wanted in labels]
    return [Teacher(network, space, input_size).to(device) for space in spaces]


def _space(
    path: str | Path,
    network: nn.Module,
    names: Sequence[str],
    labels: str | Path | None,
    keep: Sequence[str] | None,
) -> LabelSpace:
    if labels is None:
        labels = "celebamask15" if tuple(names) in {CELEBAMASK19, FACE15} else NATIVE
    space = read_space(labels, names)
    space = space if keep is None else space.keep(keep)
    if space.zero_logit and not getattr(network, "per_pixel", True):
        raise InputError(
            f"a logit of zero (`none_of_these`) beside {path}, which scores masks, not pixels",
            "a network with a logit a pixel and class (SegFormer, UPerNet)",
            "leave `none_of_these` out, and name a class for the `rest`",
        )
    return space


def _open(path: str | Path) -> tuple[nn.Module, Sequence[str], int | None]:
    """A network, the names of its logits, and the px that it reads (None: any)."""
    from pipeline.teachers import huggingface

    on_hub = HUB_ID.fullmatch(str(path)) and Path(path).suffix not in FILES
    if Path(path).is_dir() or (on_hub and not Path(path).exists()):
        model = huggingface.load_network(path)
        return model, model.classes, None
    if not Path(path).exists():
        raise InputError(
            f"no file at {path}",
            "weights of a teacher, a folder of a Hugging Face model, or its id OWNER/NAME",
            "name one of these; docs/teachers.md says where teachers come from",
        )
    if Path(path).suffix == ".safetensors":
        return _trained_here(path), CELEBAMASK19, INPUT_SIZE
    network = _published(path)
    return network, PUBLISHED_CLASSES[network.final.out_channels], PUBLISHED_SIZE


def _trained_here(path: str | Path) -> nn.Module:
    tensors, facts = read_safetensors(path)
    name = facts.get("architecture")
    if name is None:
        raise InputError(
            f"{path}, which names no teacher architecture",
            "weights written by stages.train_teacher",
            "name a teacher from checkpoints/, or the folder of a Hugging Face model",
        )
    network = NETWORKS[choose("teacher architecture", name, NETWORKS)](len(CELEBAMASK19))
    _fill(network, tensors, path, f"weights of a {name} of {len(CELEBAMASK19)} classes")
    return channels_last(network)


def _published(path: str | Path) -> PublishedUNet:
    """CelebAMask-HQ's UNet, known by its keys; no code of the file runs."""
    value = load_plain(Path(path).read_bytes())
    value = value.get("state_dict", value) if isinstance(value, dict) else {}
    tensors = {str(key).removeprefix("module."): tensor for key, tensor in value.items()}
    head = tensors.get("final.weight")
    if "up_concat4.up.weight" not in tensors or not isinstance(head, Tensor):
        raise InputError(
            f"{path} with {', '.join(list(tensors)[:4]) or 'no tensors'}, ...",
            "the UNet of CelebAMask-HQ (conv1 ... up_concat1, final) as a plain state dict",
            "name such a file, or the folder of a Hugging Face model",
        )
    if len(head) not in PUBLISHED_CLASSES:
        raise InputError(f"{path} of {len(head)} classes", "15 or 19", "name another file")
    network = PublishedUNet(len(head))
    _fill(network, tensors, path, "the widths 16, 32, 64, 128, 256 with batch norm")
    return channels_last(network)


def _fill(network: nn.Module, tensors: dict[str, Tensor], path: object, wanted: str) -> None:
    floats = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    try:
        network.load_state_dict(floats)
    except RuntimeError as error:
        raise InputError(
            f"{path}, whose tensors do not fit ({str(error).splitlines()[-1].strip()})",
            wanted,
            "fetch or train the teacher again, or check out checkpoints/",
        ) from error


__all__ = ["INPUT_SIZE", "LABEL_SPACES", "Teacher", "load_teacher", "load_teachers"]
