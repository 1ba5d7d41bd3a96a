"""Linear appearance: tables of what a linear reading of feature maps explains, and its figure."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import pandas as pd

from pipeline.data.arrays import Group
from pipeline.reporting.figures import Column, grid_figure
from pipeline.reporting.tables import Metrics, Table

APPEARANCE = "appearance"  # the file of scores
LIMITS_NOTE = """R2, in %, of a ridge regression from feature maps to the image's colors, on pixels
of test samples at each truncation psi: 1 minus the squared error over the variance of each color;
in parentheses the 95 % bootstrap interval over samples. PSNR in dB. All readings are of the image
at one size, that of the finest tap up to the limit in params.yaml; coarser taps are interpolated.
The row of that limit is the reading that is saved, others are fitted on the same pixels with its
penalty. "reinitialized": the same generator with weights drawn anew, on half the pixels.
"coordinates": plane waves of the pixel's place."""

ALONE_NOTE = """As above, of each feature map by itself."""
CONTROLS = {"reinitialized": "re-initialised", "coordinates": "coordinates"}


def all_tables(metrics: Metrics) -> Iterator[Table]:
    """(file name, title, note, table) of each table."""
    yield "appearance", "Linear appearance", LIMITS_NOTE, limits_table(metrics)
    title = "Linear appearance by one tap"
    yield "appearance_taps", title, ALONE_NOTE, _table(metrics, {"alone": "{}"})


def limits_table(metrics: Metrics) -> pd.DataFrame:
    """A row a study and limit of taps, and the controls."""
    return _table(metrics, {"limits": "taps to {} px", "controls": "{}"})


def _table(metrics: Metrics, groups: Mapping[str, str]) -> pd.DataFrame:
    """A row a study and reading; groups: {group of the file: what a row is called}."""
    rows = []
    for study, files in metrics.items():
        found = files.get(APPEARANCE, {})
        for group, words in groups.items():
            for name, cell in found.get(group, {}).items():
                row = {"study": study, "read": words.format(CONTROLS.get(name, name))}
                row["channels"] = cell["channels"]
                rows.append(row | _scores(cell))
    return pd.DataFrame(rows)


def _scores(cell: Mapping) -> dict[str, float]:
    found = {}
    for psi in _truncations(cell):
        for end in ("mean", "low", "high"):
            name = f"R2, psi {psi}" + ("" if end == "mean" else f" {end}")
            found[name] = 100 * cell[psi]["r2"][end]
        found[f"PSNR, psi {psi}"] = cell[psi]["psnr"]
    return found


def _truncations(cell: Mapping) -> list[str]:
    return [name for name, value in cell.items() if isinstance(value, Mapping)]


def findings(files: Mapping[str, dict]) -> list[str]:
    """What the saved reading explains, beside the re-initialised generator's."""
    found = files.get(APPEARANCE)
    if not found:
        return []
    limit, size = found["fit"]["limit"], found["fit"]["size"]
    ours = found["limits"][str(size)]
    words = [f"{ours[psi]['r2']['mean']:.3f} at psi {psi}" for psi in _truncations(ours)]
    control = found["controls"]["reinitialized"]
    theirs = [f"{control[psi]['r2']['mean']:.3f}" for psi in _truncations(ours)]
    return [
        f"a linear reading of the taps up to {limit} px gives the image at {size} px with an R2 "
        f"of {', '.join(words)}; of the same generator with weights drawn anew {', '.join(theirs)}."
    ]


def draw_readings(readings: Path, figure: Path) -> None:
    """A row a test sample: its image beside the linear reading, at each truncation."""
    group = Group(readings)
    columns: list[Column] = []
    for psi in cast(list, group.attributes["truncations"]):
        images, read = (
            group.read(str(psi), name).transpose(0, 2, 3, 1) for name in ("images", "readings")
        )
        columns += [Column(f"image, psi {psi}", images), Column("linear reading", read)]
    rows = [f"test {row}" for row in range(len(columns[0].pictures))]
    grid_figure(figure, columns, rows, ())
