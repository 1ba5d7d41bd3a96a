"""A toy study as a folder for the studio: params.yaml, generator, latents, masks, networks."""

from pathlib import Path

import toys
import yaml

from pipeline.runtime.weights import write_safetensors

SIZES = {"train": 2, "validation": 0, "test": 3, "pool": 6}
LABELS = {"classes": {name: [name] for name in toys.CLASSES}, "rest": "bg"}
PARAMS = {
    "studies": {
        "toy": {
            "load": {"sha256": "none"},
            "teacher": "teacher.safetensors",
            "judge": "judge.safetensors",
            "labels": "labels.yaml",
            "sample": SIZES | {"truncation_psi": 0.7},
            "features": {"label_size": 32},
            "loop_extractor": "lse",
            "edits": {"loop_tap_resolution": 32},
        }
    },
    "cache_pixels": {"align_corners": False},
    "fewshot_rule": {"power": 0.5, "l2": 1e-3, "iterations": 15, "pixels_per_sample": 128},
}


def write_study(root: Path, family: str = "mobile_stylegan") -> Path:
    """The study `toy` in the folder `root`."""
    for kind in ("checkpoints", "latents", "masks"):
        (root / "data" / kind).mkdir(parents=True)
    checkpoint = toys.write_generator(root / "data/checkpoints/toy.safetensors", family)
    toys.write_latents(root / "data/latents/toy.zarr.zip", checkpoint, SIZES)
    toys.write_masks(root / "data/masks/toy.zarr.zip", 32, SIZES)
    for seed, name in enumerate(("teacher", "judge")):
        tensors = toys.teacher_tensors("unet", seed)
        write_safetensors(root / f"{name}.safetensors", tensors, {"architecture": "unet"})
    (root / "labels.yaml").write_text(yaml.safe_dump(LABELS, sort_keys=False))
    (root / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    return root
