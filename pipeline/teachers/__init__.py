"""Segmentation teachers behind one contract: float images in, masks of a label space out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from pipeline.checkpoints import read_safetensors
from pipeline.errors import InputError, choose
from pipeline.teachers.labels import LabelSpace, label_space
from pipeline.teachers.networks import NETWORKS

INPUT_SIZE = 256


class Teacher(nn.Module):
    """A face-parsing network read as probabilities of a label space's merged classes."""

    def __init__(self, network: nn.Module, labels: LabelSpace):
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.labels = labels
        ids = torch.arange(len(labels.classes))  # a dropped class has a row of zeros
        self.register_buffer("merge", (torch.tensor(labels.merge)[:, None] == ids).float())

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the ids."""
        return self.labels.classes

    def probabilities(
        self, images: Float[Tensor, "sample 3 height width"], size: int
    ) -> Float[Tensor, "sample class size size"]:
        """Class probabilities at `size` px of images in [-1, 1] of any size; differentiable."""
        return torch.einsum("nchw,cm->nmhw", self._logits(images, size).softmax(1), self.merge)

    def log_probabilities(
        self, images: Float[Tensor, "sample 3 height width"], size: int
    ) -> Float[Tensor, "sample class size size"]:
        """The logarithm of `probabilities`; its gradient does not vanish where they underflow."""
        logs = self._logits(images, size).log_softmax(1)
        members = [column.nonzero()[:, 0] for column in self.merge.T]
        return torch.stack([logs[:, ids].logsumexp(1) for ids in members], 1)

    def _logits(self, images: Tensor, size: int) -> Tensor:
        """Logits [N, C, size, size] of the network's own classes."""
        x = images.to(self.merge.device).clamp(-1, 1)
        if x.shape[-2:] != (INPUT_SIZE, INPUT_SIZE):
            x = F.interpolate(
                x, (INPUT_SIZE, INPUT_SIZE), mode="bilinear", align_corners=False, antialias=True
            )
        logits = self.network(x.contiguous(memory_format=torch.channels_last)).float()
        return F.interpolate(
            logits, (size, size), mode="bilinear", align_corners=False, antialias=True
        )

    @torch.inference_mode()
    def label(
        self, images: Float[Tensor, "sample 3 height width"], size: int
    ) -> UInt8[np.ndarray, "sample size size"]:
        """Masks of class ids [N, size, size] of images in [-1, 1]."""
        return self.probabilities(images, size).argmax(1).to(torch.uint8).cpu().numpy()


def load_teacher(
    path: str | Path,
    labels: str = "celebamask15",
    device: str | torch.device = "cpu",
    keep: Sequence[str] | None = None,  # selected classes of `labels`; None: all
) -> Teacher:
    """Load weights that `stages.train_teacher` wrote, read in the label space `labels`."""
    tensors, facts = read_safetensors(path)
    name = facts.get("architecture")
    if name is None:
        raise InputError(
            f"{path}, which names no teacher architecture",
            "weights written by stages.train_teacher",
            "name a teacher from checkpoints/",
        )
    space = label_space(labels) if keep is None else label_space(labels).keep(keep)
    network = NETWORKS[choose("teacher architecture", name, NETWORKS)](len(space.merge))
    try:
        network.load_state_dict({key: value.float() for key, value in tensors.items()})
    except RuntimeError as error:
        raise InputError(
            f"{path}, whose tensors do not fit ({str(error).splitlines()[-1].strip()})",
            f"weights of a {name} of {len(space.merge)} classes",
            "train the teacher again or check out checkpoints/",
        ) from error
    network = network.to(memory_format=torch.channels_last)
    return Teacher(network, space).to(device)
