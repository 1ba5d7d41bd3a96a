"""Semantic segmentation models in the layout of Hugging Face transformers (the extra `teachers`).

Per-pixel classifiers (SegFormer, Xie et al. 2021; UPerNet, Xiao et al. 2018) and mask classifiers
(Mask2Former, Cheng et al. 2022), whose masks are added up to class scores as their paper says.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.runtime.errors import InputError

INSTALL = "pip install 'transformers>=4.40'  (or: pip install -e '.[teachers]')"
# Auto class that reads an architecture, by how the architecture's name ends.
PER_PIXEL, MASKS = "ForSemanticSegmentation", ("Mask2Former", "MaskFormer")
RESAMPLE = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # PIL's numbers
EPS = 1e-6  # of scores, before their logarithm


@dataclass(frozen=True)
class Preprocessing:
    """What the model's image processor does to an image, as its configuration says."""

    size: tuple[int, int] | None  # height, width; None: as it comes
    shortest_edge: int | None
    longest_edge: int | None
    divisor: int  # sides are rounded up to its multiples
    resample: str
    scale: float  # of pixel values 0-255
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [-1, 1] as the network reads them; differentiable."""
        height, width = self._target(*images.shape[-2:])
        if (height, width) != tuple(images.shape[-2:]):
            smooth = self.resample != "nearest"
            options = {"align_corners": False, "antialias": True} if smooth else {}
            images = F.interpolate(images, (height, width), mode=self.resample, **options)
        x = (images.clamp(-1, 1) + 1) * (127.5 * self.scale)
        mean, std = (x.new_tensor(v).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return (x - mean) / std

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if self.size is not None:
            return self.size
        if self.shortest_edge is None:
            return height, width
        factor = self.shortest_edge / min(height, width)
        if self.longest_edge:
            factor = min(factor, self.longest_edge / max(height, width))
        sides = (round(side * factor) for side in (height, width))
        height, width = (math.ceil(side / self.divisor) * self.divisor for side in sides)
        return height, width


class Network(nn.Module):
    """A model with its own preprocessing: images in [-1, 1] to logits [N, C, h, w]."""

    def __init__(self, model: nn.Module, prepare: Preprocessing, classes: tuple[str, ...]):
        super().__init__()
        self.model, self.prepare, self.classes = model, prepare, classes
        self.per_pixel = not type(model).__name__.startswith(MASKS)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the classes at the model's own resolution.

        Of a mask classifier: log of the sum over queries of p(class) p(pixel in mask), "no object"
        left out (Cheng et al. 2021, section 3.4).
        """
        found = self.model(pixel_values=self.prepare(images))
        if self.per_pixel:
            logits = found.logits
        else:
            of_class = found.class_queries_logits.softmax(-1)[..., :-1]
            in_mask = found.masks_queries_logits.sigmoid()
            logits = torch.einsum("nqc,nqhw->nchw", of_class, in_mask).add(EPS).log()
        if logits.shape[1] != len(self.classes):
            raise InputError(
                f"a model of {logits.shape[1]} logits with {len(self.classes)} names in id2label",
                "a name a logit",
                "mend id2label in its config.json",
            )
        return logits


def load_network(path: str | Path) -> Network:
    """A model from a local folder, or by its id on the hub; InputError if it segments nothing."""
    try:
        import transformers
    except ImportError as error:
        raise InputError(
            f"{path}, a Hugging Face model, without the package transformers",
            "the optional extra `teachers`",
            f"run: {INSTALL}",
        ) from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if Path(path).is_dir() and not (Path(path) / "config.json").exists():
        raise InputError(
            f"folder {path} without config.json",
            "a Hugging Face model: config.json, preprocessor_config.json, model.safetensors",
            f"fetch it with `hf download OWNER/NAME --local-dir {path}`",
        )
    config = _attempt(path, transformers.AutoConfig.from_pretrained)
    auto = _auto_class(path, config, transformers)
    model, report = _attempt(path, auto.from_pretrained, output_loading_info=True)
    if missing := sorted(report["missing_keys"]) or sorted(map(str, report["mismatched_keys"])):
        raise InputError(
            f"{path} without the weights {missing[0]}",
            f"all weights of a {type(model).__name__} of {len(config.id2label)} classes (id2label)",
            "fetch the model again, or mend id2label in its config.json",
        )
    names = tuple(config.id2label[i] for i in sorted(config.id2label))
    return Network(model, read_preprocessing(path), names)


def _auto_class(path: object, config: Any, transformers: Any) -> Any:
    """Which auto class reads the model, by the architecture that its configuration names."""
    architecture = (config.architectures or [f"{config.model_type} of no architecture"])[0]
    if architecture.endswith(PER_PIXEL):
        return transformers.AutoModelForSemanticSegmentation
    if architecture.startswith(MASKS):
        return transformers.AutoModelForUniversalSegmentation
    raise InputError(
        f"{path}, a {architecture}",
        f"a model for semantic segmentation: *{PER_PIXEL}, or {' or '.join(MASKS)}",
        "name a model with such a head",
    )


def _attempt(path: object, load: Any, **options: object) -> Any:
    """What `load` makes of a model; its many errors as one sentence."""
    try:
        return load(path, **options)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0][:200]
        raise InputError(
            f"{path}, which transformers cannot load ({reason})",
            "a Hugging Face model whose weights match its config.json (id2label, too)",
            "fetch it with `hf download OWNER/NAME --local-dir FOLDER` and name the folder",
        ) from error


def read_preprocessing(path: str | Path) -> Preprocessing:
    """The preprocessing of a model, from the file preprocessor_config.json of its folder."""
    if Path(path).is_dir():
        file = Path(path) / "preprocessor_config.json"
    else:
        from transformers.utils import cached_file

        file = Path(_attempt(path, lambda p: cached_file(p, "preprocessor_config.json")))
    try:
        facts = json.loads(file.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(
            f"{path} without a readable preprocessor_config.json",
            "the file that says how the model's images are resized and normalized",
            "fetch the model again",
        ) from error
    return _preprocessing(facts)


def _preprocessing(facts: dict) -> Preprocessing:
    size, crop = facts.get("size", 512), facts.get("crop_size") or {}
    if facts.get("do_center_crop") and "shortest_edge" in (size if isinstance(size, dict) else {}):
        size = crop  # of a square: the whole image at the size that is left, not its middle
    if isinstance(size, int):
        size = {"height": size, "width": size}
    sides = (size["height"], size["width"]) if "height" in size else None
    resize, normalize = facts.get("do_resize", True), facts.get("do_normalize", True)
    return Preprocessing(
        sides if resize else None,
        size.get("shortest_edge") if resize else None,
        size.get("longest_edge", facts.get("max_size")),
        facts.get("size_divisor") or facts.get("size_divisibility") or 1,
        RESAMPLE.get(facts.get("resample", 2), "bilinear"),
        facts.get("rescale_factor", 1 / 255) if facts.get("do_rescale", True) else 1.0,
        tuple(facts.get("image_mean", (0.485, 0.456, 0.406))) if normalize else (0.0, 0.0, 0.0),
        tuple(facts.get("image_std", (0.229, 0.224, 0.225))) if normalize else (1.0, 1.0, 1.0),
    )
