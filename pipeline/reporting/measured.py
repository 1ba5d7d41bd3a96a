"""Benchmark JSON as the table of the page of measurements."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json

Row = tuple[str, str]  # what was measured, and the figures

SHOTS = (1, 4, 8, 16)
WHO = ("ours", "recipe")


def rows(folder: Path) -> list[tuple[str, str, str]]:
    """(what, figures, machine) of every benchmark whose JSON lies in the folder."""
    found = []
    for name, describe in BENCHMARKS.items():
        if (path := folder / f"{name}.json").exists():
            values = read_json(path)
            machine = values.get("machine", "")
            found += [(what, figures, machine) for what, figures in describe(values)]
    if not found:
        raise InputError(f"no benchmarks in {folder}", "<benchmark>.json", "run `make bench`")
    return found


def table(folder: Path) -> str:
    """The rows as Markdown."""
    lines = ["| what | measured | on |", "|---|---|---|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows(folder)])


def _pair(values: Mapping, *names: str) -> str:
    return " / ".join(str(values[name]) for name in names)


def _noop(v: Mapping) -> Iterator[Row]:
    yield "`dvc repro` with nothing to do", f"{v['no-op dvc repro, s']} s"


def _synthesis(v: Mapping) -> Iterator[Row]:
    for what, stop in (
        ("synthesis of one 1024 px image, one thread, float32 / bfloat16", "image"),
        ("... to the last 128 px tap", "128px_conv2"),
    ):
        yield what, _pair(v, f"float32 to {stop}, s", f"bfloat16 to {stop}, s") + " CPU s"


def _cache(v: Mapping) -> Iterator[Row]:
    yield "caching (int8 taps to 128 px, image, hash, write) over bare synthesis", f"{v['ratio']} x"


def _memory(v: Mapping) -> Iterator[Row]:
    for stage in ("cache_features", "cache_pixels", "fit_extractor"):
        figures = f"{v[f'{stage}, ratio']} x ({v[f'{stage}, 64 samples, MiB']} MiB)"
        yield f"peak anonymous memory of {stage}, 64 samples over 16, one worker", figures


def _bfloat16(v: Mapping) -> Iterator[Row]:
    scores = _pair(v, "bfloat16, miou_per_image", "float32, miou_per_image")
    interval = v["bfloat16 - float32, miou_per_image"]
    what = "synthesis in bfloat16 / float32: held-out mIoU per image"
    yield what, f"{scores} (95 % of the difference: {interval})"


def _alignment(v: Mapping) -> Iterator[Row]:
    scores = _pair(v, "align-corners, miou_per_image", "no-align-corners, miou_per_image")
    interval = v["without - with, miou_per_image, 95 %"]
    what = "`align_corners` true / false: held-out mIoU per image"
    yield what, f"{scores} (95 % of the difference: {interval})"


def _solver(v: Mapping) -> Iterator[Row]:
    ours, recipe = (v[f"{who}: final per_image / dataset"] for who in ("ours", "recipe"))
    what = "LSE on the cached taps (to 128 px), our solver: held-out mIoU per image / dataset"
    yield what, " / ".join(map(str, ours))
    intervals = "; ".join(
        v[f"ours - recipe, {protocol}, 95 %"] for protocol in ("miou_per_image", "miou_dataset")
    )
    yield (
        f"... the paper's Adam recipe in full, {v['recipe: Adam steps']} steps",
        f"{' / '.join(map(str, recipe))} (95 % of ours - recipe: {intervals})",
    )
    spent, fast = v["ours: CPU s to the recipe's per_image"], v["recipe: CPU s with the fast pass"]
    yield (
        "... our CPU time to the recipe's per-image mIoU, pixels included",
        f"{spent} s: {v['ratio to the recipe with the fast pass']} of the recipe with our fast "
        f"pass ({fast} s), {v['ratio to the recipe as published']} of it as published (a pass "
        f"timed: {v['recipe: CPU s as published (a pass x 51,200)']} s)",
    )


def _latent_step(v: Mapping) -> Iterator[Row]:
    for name in [key for key in v if key.endswith("CPU s a step")]:
        yield f"latent step: {name.removesuffix(', CPU s a step')}", f"{v[name]} CPU s"
    for name in [key.removesuffix(", range") for key in v if key.endswith(", range")]:
        low, high = v[f"{name}, range"]
        yield f"latent step: {name}", f"{v[name]} ({low} to {high})"


def _modulation(v: Mapping) -> Iterator[Row]:
    ratios = _pair(v, "batch 1, to the image, ratio", "batch 4, to the image, ratio")
    what = "our StyleGAN2 at 256 px, full width, against per-sample grouped convolutions"
    yield f"{what}: batch 1 / 4, image", f"{ratios} x"


def _directions(v: Mapping) -> Iterator[Row]:
    (name,) = (key for key in v if key.startswith("ffhq: SeFa"))
    yield "SeFa of all layers of `ffhq`", f"{v[name]} CPU s"


def _clustering(v: Mapping) -> Iterator[Row]:
    size = f"{v['vectors']} vectors of {v['channels']} channels, K {v['clusters']}"
    figures = f"{v['s']} s ({v['CPU s']} CPU s), {v['peak GiB']} GiB"
    yield f"spherical k-means, {size}, {v['restarts']} restarts", figures


def _fewshot(v: Mapping) -> Iterator[Row]:
    ours, recipe = v["CPU s in all: ours / recipe"]
    what = "few-shot fits, one draw each, with pixel lookup, against the paper's recipe in full"
    yield what, f"{ours} against {recipe} CPU s, {ours / recipe:.4f}"
    for shots in SHOTS:
        found = (v[f"{shots} shots, {who}: CPU s / per_image / dataset"] for who in WHO)
        each = (
            f"{who} {seconds} s, {per_image} / {dataset}"
            for who, (seconds, per_image, dataset) in zip(WHO, found, strict=True)
        )
        yield f"... {shots} shots: CPU s of a fit, mIoU per image / dataset", "; ".join(each)


def _teacher(v: Mapping) -> Iterator[Row]:
    for split in ("train", "validation", "test"):
        found = v[f"face-unet, {split}"]
        scores = ", ".join(f"{name} {iou}" for name, iou in found.items())
        mirrored = v[f"face-unet, {split}, mirrored"]["mean of 15"]
        what = f"the teacher on 100 {split} images: IoU, %"
        yield what, f"{scores}; averaged with the mirror image: {mirrored}"


def _halves(v: Mapping) -> Iterator[Row]:
    for role in ("teacher", "judge"):
        each = []
        for split in ("validation", "test"):
            lost = v[f"{role}, {split}, points lost by half the images"].items()
            each.append(f"{split} " + ", ".join(f"{name} {points}" for name, points in lost))
        yield f"what half of the training images costs the {role}: IoU, points", "; ".join(each)


BENCHMARKS: dict[str, Callable[[Mapping], Iterator[Row]]] = {
    "teacher": _teacher,
    "halves": _halves,
    "noop": _noop,
    "synthesis": _synthesis,
    "cache": _cache,
    "memory": _memory,
    "bfloat16": _bfloat16,
    "alignment": _alignment,
    "solver": _solver,
    "latent_step": _latent_step,
    "modulation": _modulation,
    "directions": _directions,
    "clustering": _clustering,
    "fewshot_full_recipe": _fewshot,
}
