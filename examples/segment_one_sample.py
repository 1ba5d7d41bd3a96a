"""z -> image -> mask with a fitted extractor of this repository; no pipeline run is needed.

`python examples/segment_one_sample.py [EXTRACTOR] [SEED]` fetches the generator once, writes
sample.png and prints the share of each class. EXTRACTOR: a file of checkpoints/extractors.
"""

import signal
import sys
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from pipeline.data.images import to_uint8
from pipeline.extractors.networks import load_extractor
from pipeline.generators.contract import Generator
from pipeline.generators.latents import sample_z
from pipeline.generators.options import Load
from pipeline.generators.registry import load_generator
from pipeline.generators.taps import record
from pipeline.reporting.palette import colorize
from pipeline.runtime.errors import InputError, choose
from stages import execute
from stages.fetch_checkpoint import fetch_checkpoint

REPO = Path(__file__).parents[1]


def fetched_generator(study: str) -> Generator:
    """The generator of a study of params.yaml; its package is fetched if it is not here yet."""
    checkpoint = REPO / f"data/checkpoints/{study}.safetensors"
    if not checkpoint.exists():
        studies = yaml.safe_load((REPO / "params.yaml").read_text())["studies"]
        load = Load(**studies[choose("study", study, studies)]["load"])
        fetch_checkpoint(checkpoint, load=load)
    return load_generator(checkpoint)


def main(name: str = "ffhq", seed: int = 7, size: int = 256) -> None:
    """Draw one sample, segment it by one linear map over its feature maps, save both."""
    fitted = REPO / "checkpoints" / "extractors"
    choose("extractor", name, sorted(path.stem for path in fitted.glob("*.safetensors")))
    extractor = load_extractor(fitted / f"{name}.safetensors")
    generator = fetched_generator(name.partition("_")[0])

    z = torch.from_numpy(sample_z([seed], generator.z_dim))
    ws = generator.mapping(z, truncation_psi=0.5)
    with torch.inference_mode(), record(generator, extractor.taps) as features:
        images = generator.synthesis(ws)
        mask = extractor.predict(features, size)[0]

    picture = to_uint8(images, size)[0].transpose(1, 2, 0)
    colored = colorize(mask, list(extractor.classes))
    Image.fromarray(np.concatenate([picture, colored], 1)).save("sample.png")
    for index in np.argsort(-np.bincount(mask.ravel(), minlength=len(extractor.classes))):
        if share := float((mask == index).mean()):
            print(f"{extractor.classes[index]:>6} {100 * share:5.1f} %")


def seed_of(text: str) -> int:
    """The seed that was typed; InputError if it is none."""
    if not text.isdecimal():
        raise InputError(f"seed {text!r}", "a whole number of at least 0", "name one, or none: 7")
    return int(text)


def run(words: list[str]) -> None:
    """`main` as a program: bad input is one sentence and exit status 2."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head -1` ends it without a traceback
    execute(lambda: main(*words[:1], *map(seed_of, words[1:2])))


if __name__ == "__main__":
    run(sys.argv[1:])
