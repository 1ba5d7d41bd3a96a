"""Model cards of the networks that this project trains."""

from collections.abc import Mapping

import pandas as pd

from pipeline.reporting.tables import in_order, markdown


def model_card(name: str, facts: Mapping, size: int) -> str:
    """Markdown: what it is, data and license, held-out scores, how to retrain."""
    scores = facts["scores"]
    count = {part: value["images"] for part, value in scores.items()}
    part = {"all": "", "first": " (their first half)", "second": " (their second half)"}
    origin, start = "", ""
    if "start" in facts:
        origin = f"Goes on from `{facts['start']}` (sha256 `{facts['start_sha256']}...`). "
        start = f" \\\n      --start {facts['start']}"
    total = facts["train"] + facts["validation"] + facts["test"]
    return f"""# {name}

A face-parsing network (`{facts["architecture"]}`): images of 256 px in [-1, 1] to logits of the 19
classes of CelebAMask-HQ at 128 px; its probabilities are merged to the 15 classes of Xu & Zheng
(CVPR 2021) and upsampled. Stored as float16, {size / 1e6:.1f} MB.

**Data.** {total} pairs of CelebAMask-HQ (a public subset of 512 px; content digest
`{facts["data"]}`), split by sorted name into {facts["train"]} training{part[facts["train_part"]]},
{facts["validation"]} validation and {facts["test"]} test pairs.

**License terms.** CelebAMask-HQ is for non-commercial research and education only; these weights
are derived from it and carry the same restriction. The images are not redistributed.

**Held-out IoU (%)**, pixels of all images in one confusion matrix, at 256 px. `validation`:
{count["validation"]} images; `test`: {count["test"]}; `test_64px`: the test images shrunk to 64 px
first, which is what a 64 px generator gives the network to read.

{markdown(_score_table(scores))}

**Training.** {origin}{facts["steps"]} + {facts["polish"]} steps of {facts["batch"]} images, AdamW,
peak learning rate {facts["learning_rate"]}, seed {facts["seed"]}; flips swap left and right;
rotation, scale, shift, color, low resolution, noise and occlusion are random; images with rare
classes are drawn up to five times as often; cross-entropy weighted by frequency^-0.25, plus Dice;
the moving average of the weights is kept. The second number is a phase that starts from that
average, at a quarter of the rate, with half the augmentation and no class weights.

**Retrain** on any folder with `images/*` and `masks/*.png` (one channel, ids 0-18):

    python -m stages.train_teacher FOLDER checkpoints/{name}.safetensors checkpoints/{name}.md \\
      --architecture {facts["architecture"]} --train_part {facts["train_part"]} \\
      --train {facts["train"]} --validation {facts["validation"]} --test {facts["test"]} \\
      --steps {facts["steps"]} --batch {facts["batch"]} --seed {facts["seed"]} \\
      --polish {facts["polish"]} \\
      --learning_rate {facts["learning_rate"]} --device auto{start}
"""


def _score_table(scores: Mapping[str, dict]) -> pd.DataFrame:
    """A row per class and two of means; a column per held-out part."""
    per_class = {
        part: in_order(value["miou_dataset"]["per_class"]) for part, value in scores.items()
    }
    table = pd.DataFrame(per_class)
    table.index.name = "class"
    table.loc["mean of 15, background included"] = {
        part: value["miou_dataset_with_background"] for part, value in scores.items()
    }
    table.loc["mean of 14, per image (eq 4)"] = {
        part: value["miou_per_image"]["mean"] for part, value in scores.items()
    }
    return table.reset_index()
