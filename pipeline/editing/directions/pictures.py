"""Pictures of a study of directions: traversals of one sample along named directions."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.editing.directions.mask_changes import NAMELESS
from pipeline.editing.directions.method import Vector, move
from pipeline.editing.directions.plan import Known, Plan
from pipeline.editing.directions.probes import Setup, render
from pipeline.metrics.color import lab


@dataclass(frozen=True)
class Line:
    """One row of the figure."""

    title: str
    vector: Vector
    rows: tuple[int, ...]


def lines(known: Known, described: Mapping[str, dict]) -> list[Line]:
    """Rows of the figure: directions of the strongest named effect per sd of w, and a random one.

    The strongest of each range whose name is not shown yet; of a single range, the first three.
    """
    found, names = [], set()
    for name, value in described.items():
        ranked = sorted(value["directions"], key=_strength, reverse=True)
        new = [one for one in ranked if _effect(one) not in names]
        for one in (new or ranked)[: 1 if len(described) > 1 else 3]:
            title = f"layers {name}, no. {one['index']}\n{one['name']}"
            vector = known.factors[name].vectors[one["index"]]
            found.append(Line(title, vector, known.ranges[name].rows))
            names.add(_effect(one))
    rows = next(iter(known.ranges.values())).rows
    return [*found, Line("random direction", known.random[0], rows)]


def traversals(
    setup: Setup, known: Known, plan: Plan, described: Mapping[str, dict]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Images, masks and CIELAB distances {name: [row, alpha, ...]} of the first test sample.

    Alphas are in sd of w along each direction. Also the rows' titles.
    """
    ws, shown = setup.source.ws("test", 0, 1), lines(known, described)
    unedited = lab(render(setup, ws, images=True)[1])
    images: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    distances: list[np.ndarray] = []
    for line in shown:
        amounts = np.array(plan.alphas) * known.spread.along(line.vector[None])[0]
        moved = move(ws.repeat(len(amounts), 1, 1), line.vector, line.rows, amounts)
        mask, image = render(setup, moved, images=True)
        images.append(image)
        masks.append(mask)
        distances.append(np.linalg.norm(lab(image) - unedited, axis=1).mean((1, 2)))
    arrays = {"images": images, "masks": masks, "lab": distances}
    titles = [line.title for line in shown]
    return {f"rows/{name}": np.stack(parts) for name, parts in arrays.items()}, titles


def _effect(one: Mapping) -> str:
    return one["name"].split(",")[0]


def _strength(one: Mapping) -> float:
    named = one["name"] != NAMELESS
    return abs(one["z_of_name"]["mean"]) * one["spread_of_w"] if named else 0.0
