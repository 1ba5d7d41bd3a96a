"""The command line that does what a job does."""

import shlex
from pathlib import Path

from studio.place import Place, rule_words
from studio.samples import Sample


def fit(place: Place) -> str:
    """A settled fit; the pipeline's own stage also scores it."""
    data = "data/{}/" + place.study
    paths = [
        place.checkpoint,
        place.data("latents"),
        place.data("masks"),
        data.format("pixels") + ".json",
        data.format("results") + "/scores/lse.json",
        f"data/fewshot/{place.study}",
        data.format("results") + "/fewshot.json",
        data.format("costs") + "/fit_fewshot.json",
    ]
    options = ["--annotations", place.annotations, "--shots", 1, "--repeats", 1, "--seed", 0]
    return _line("fit_fewshot", *paths, *options, *rule_words(place.rule))


def start_words(place: Place, sample: Sample) -> list[object]:
    """The options that name a sample; of a photograph none."""
    if sample.base == "pool":
        return ["--latents", place.data("latents"), "--split", "pool", "--row", sample.number]
    return ["--seed", sample.number]


def edit(place: Place, sample: Sample, folder: Path, steps: int) -> str:
    """An edit; "" for a photograph or an edited sample, which have no z to begin at."""
    if sample.moves or sample.base == "photo":
        return ""
    psi = ["--space", "w_plus", "--steps", steps, "--truncation-psi", place.psi]
    guide = ["--extractor", folder / "guide.safetensors"]
    guide += ["--loop-tap-resolution", place.loop_tap_resolution]
    judge = ["--judge", place.judge] if place.judge else []
    space = ["--labels", place.labels, "--label-size", place.size]
    files = ["--edit", folder / "edit.png", "--out", folder]
    start = start_words(place, sample)
    options = [*files, *start, *psi, *guide, *judge, *space]
    return _line("edit_semantics", place.checkpoint, place.teacher, *options)


def sample(place: Place, folder: Path, count: int, steps: int) -> str:
    """Conditional samples."""
    options = ["--target", folder / "target.png", "--out", folder, "--samples", count]
    options += ["--steps", steps, "--truncation-psi", place.psi]
    return _line("sample_conditionally", place.checkpoint, folder / "guide.safetensors", *options)


def export(place: Place, samples: int, folder: Path) -> str:
    """Samples for other annotation tools."""
    paths = [place.checkpoint, place.data("latents"), place.data("masks"), folder]
    return _line("export_samples", *paths, "--study", place.study, "--samples", samples)


def _line(stage: str, *words: object) -> str:
    return shlex.join(["python", "-m", f"stages.{stage}", *map(str, words)])
