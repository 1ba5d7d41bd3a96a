"""Semantic segmentation models in the layout of Hugging Face transformers (the extra `teachers`).

Per-pixel classifiers (SegFormer, Xie et al. 2021; UPerNet, Xiao et al. 2018) and mask classifiers
(Mask2Former, Cheng et al. 2022), whose masks are added up to class scores as their paper says.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.runtime.errors import InputError, reading
from pipeline.teachers.preprocessing import Preprocessing, of_processor

INSTALL = "pip install 'transformers>=4.40'  (or: pip install -e '.[teachers]')"
# Auto class that reads an architecture, by how the architecture's name ends.
PER_PIXEL, MASKS = "ForSemanticSegmentation", ("Mask2Former", "MaskFormer")
# Processors of models, for configurations that name none.
PROCESSORS = {
    "beit": "BeitImageProcessor",
    "dpt": "DPTImageProcessor",
    "mobilevit": "MobileViTImageProcessor",
    "mobilevitv2": "MobileViTImageProcessor",
    "mobilenet_v2": "MobileNetV2ImageProcessor",
    "mask2former": "Mask2FormerImageProcessor",
    "maskformer": "MaskFormerImageProcessor",
}
POINTER = b"version https://git-lfs"
PAGES = (b"<!doctype", b"<html")
MOST = (
    100_000  # of a size in config.json: a larger one is a damaged file's, and would fill the memory
)
EPS = 1e-6  # of scores, before their logarithm


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
    _check_weights(Path(path))
    _check_sizes(Path(path) / "config.json")
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
    return Network(model, read_preprocessing(path, config), names)


def _check_weights(folder: Path) -> None:
    """InputError for a weights file that is a git-lfs pointer, a web page or empty."""
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.suffix not in (".safetensors", ".bin") or not file.is_file():
            continue
        with file.open("rb") as opened:
            head = opened.read(64).lower().lstrip()
        what = "an empty file" if not head else None
        what = "a git-lfs pointer, not the weights" if head.startswith(POINTER) else what
        what = "a web page: the download gave no file" if head.startswith(PAGES) else what
        if what:
            raise InputError(
                f"{file}, {what}",
                "the model's weights",
                "fetch them: `git lfs pull` in its clone, or `hf download OWNER/NAME --local-dir "
                f"{folder}`",
            )


def _check_sizes(file: Path) -> None:
    """InputError for a size in config.json that no segmentation network has."""
    if not file.is_file():  # the id of a model on the hub
        return
    with reading(file, "JSON, a configuration of transformers", "fetch the model again"):
        facts = json.loads(file.read_text())
        for key, value in facts.items():
            sizes = value if isinstance(value, list) else [value]
            if largest := [x for x in sizes if isinstance(x, int) and abs(x) > MOST]:
                raise InputError(
                    f"{key} of {largest[0]} in {file}",
                    f"sizes of at most {MOST}",
                    "fetch the model again",
                )


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
    except Exception as error:  # the border: a damaged file can raise anything in the readers
        reason = (str(error) or type(error).__name__).strip().splitlines()[0][:200]
        raise InputError(
            f"{path}, which transformers cannot load ({reason})",
            "a Hugging Face model whose weights match its config.json (id2label, too)",
            "fetch it with `hf download OWNER/NAME --local-dir FOLDER` and name the folder",
        ) from error


def read_preprocessing(path: str | Path, config: Any) -> Preprocessing:
    """The preprocessing of a model, from the file preprocessor_config.json of its folder."""
    if Path(path).is_dir():
        file = Path(path) / "preprocessor_config.json"
    else:
        from transformers.utils import cached_file

        file = Path(_attempt(path, lambda p: cached_file(p, "preprocessor_config.json")))
    try:
        facts = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} without a readable preprocessor_config.json",
            "the file that says how the model's images are resized and normalized",
            "fetch the model again",
        ) from error
    if not isinstance(facts, dict):
        raise InputError(
            f"{file} with a {type(facts).__name__}", "a JSON object", "fetch the model again"
        )
    return of_processor(_processor(facts, config, path), path)


def _processor(facts: dict, config: Any, path: object) -> Any:
    """transformers' image processor of a configuration, on PIL; of its model's where it is silent.

    `feature_extractor_type` is how old configurations name it.
    """
    import transformers

    named = facts.get("image_processor_type") or facts.get("feature_extractor_type") or ""
    name = str(named).replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast")
    name = name.removesuffix("Pil")
    kind: Any = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name, None)
    if not str(name).endswith("ImageProcessor") or not isinstance(kind, type):
        name = PROCESSORS.get(config.model_type, "SegformerImageProcessor")
        kind = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    drop = {"image_processor_type", "feature_extractor_type"}
    return _attempt(
        path, lambda _: kind.from_dict({k: v for k, v in facts.items() if k not in drop})
    )
