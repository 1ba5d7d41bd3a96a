"""The page of inverted photographs."""

from collections.abc import Mapping, Sequence

import pandas as pd

from pipeline.reporting.tables import fold, markdown

PAGE = """# Inverted photographs, {study}

{photos} photographs of CelebAMask-HQ (content digest of all pairs `{data}`), the last ones by
sorted name, which no network here was trained on, inverted by {steps} steps on the linear reading
at {size} px ([docs/photos.md](../../docs/photos.md)). Masks of the inverted photos' feature maps
against the masks that people drew, at {label_size} px.

{scores}

IoU in %, of one confusion matrix over the pixels of all photos; the mean includes the background.
In parentheses: 95 % bootstrap interval over photos. Few-shot LSEs: the mean of {repeats} draws of
annotated samples, labeled by the teacher. The teacher reads the photos themselves. A dash: no photo
shows the class.

{distances}

Of the latents' images from the photos: of features (EfficientNet-Lite0), and squared differences of
pixels in [-1, 1] and of the means of 4x4 pixels, at {size} px{landmarks}.
"""


def photos_page(study: str, report: Mapping) -> str:
    """Markdown of what measure_photos found."""
    distances = dict(report["distances"])
    words = ""
    if found := report["landmarks"]:
        distances["landmarks"] = found
        words = (
            "; of 468 landmarks, the mean distance in eye distances, "
            f"where both show a face ({found['photos']} photos)"
        )
    repeats = max(one["repeats"] for one in report["scores"].values())
    return PAGE.format(
        study=study,
        steps=report["rule"]["steps"],
        scores=markdown(fold(score_table(report["scores"], report["classes"]))),
        distances=markdown(_distance_table(distances)),
        landmarks=words,
        repeats=repeats,
        **{name: report[name] for name in ("photos", "data", "size", "label_size")},
    )


def score_table(scores: Mapping[str, Mapping], classes: Sequence[str]) -> pd.DataFrame:
    """A row a class, then means; a column a reader, with its interval's ends."""
    columns: dict[str, dict[str, float | None]] = {}
    for name, found in scores.items():
        rows = {c: found["per_class"][c] for c in classes} | {"mean IoU": found["miou"]}
        rows |= {"pixel accuracy": found["pixel_accuracy"]}
        for end, words in (("mean", ""), ("low", " low"), ("high", " high")):
            columns[f"{name}{words}"] = {row: value[end] for row, value in rows.items()}
    table = pd.DataFrame(columns)
    table.index.name = "class"
    return table.reset_index()


def _distance_table(distances: Mapping[str, Mapping]) -> pd.DataFrame:
    rows = [
        {"distance": name, "mean": found["mean"], "low": found["low"], "high": found["high"]}
        for name, found in distances.items()
    ]
    return pd.DataFrame(rows)
