"""Linear appearance: a generator's image as a linear reading of its feature maps.

What eq (1) of Xu & Zheng (CVPR 2021) does for classes, done for red, green and blue by ridge
regression. The image is then had, at the size of the finest map read, without synthesizing it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int64
from torch import Tensor

from pipeline.data.arrays import Group
from pipeline.data.features import Source
from pipeline.data.images import to_float, to_uint8
from pipeline.data.pixels import hypercolumns
from pipeline.extractors.networks import LSE, load_extractor
from pipeline.extractors.options import AppearanceFit
from pipeline.generators.contract import Generator
from pipeline.generators.taps import Tap, record, select
from pipeline.runtime import workers
from pipeline.runtime.errors import InputError
from pipeline.runtime.progress import say

COLORS = ("red", "green", "blue")  # the "classes" of an appearance extractor; logits in [-1, 1]
BLOCK = 1024  # channels: products of a block with itself and with those behind it are summed
PER_TASK = 8  # samples


def preview(
    generator: Generator, appearance: LSE, ws: Float[Tensor, "sample num_ws w_dim"]
) -> Float[Tensor, "sample 3 size size"]:
    """Images of ws, about [-1, 1], as the finest tap's maps show them; synthesis ends there.

    Differentiable in ws.
    """
    last = appearance.taps[-1]
    with record(generator, appearance.taps) as features:
        generator.synthesis(ws, stop_at=last)
    return appearance.logits(features, last.resolution)


def read_appearance(path: str | Path, device: str | torch.device = "cpu") -> LSE:
    """Load an appearance extractor, frozen; InputError for an extractor of classes."""
    found = load_extractor(path, device)
    if not isinstance(found, LSE) or found.classes != COLORS:
        raise InputError(
            f"{path}, an extractor of {', '.join(found.classes)}",
            f"one of {', '.join(COLORS)}",
            "name a file that fit_appearance wrote",
        )
    return found


class Moments:
    """Sums over pixels of the products of hypercolumns, a 1 behind them, and colors; float64."""

    def __init__(self, channels: int):
        self.gram = torch.zeros(channels + 1, channels + 1, dtype=torch.float64)
        self.cross = torch.zeros(channels + 1, 3, dtype=torch.float64)
        self.count = 0

    def add(
        self, columns: Float[Tensor, "pixel channel"], colors: Float[Tensor, "pixel 3"]
    ) -> None:
        """Add pixels; few thousand at a time, since their products are summed in float32."""
        x = torch.cat([columns, columns.new_ones(len(columns), 1)], 1)
        for start in range(0, x.shape[1], BLOCK):  # the upper triangle is enough
            own = x[:, start : start + BLOCK]
            self.gram[start : start + BLOCK, start:] += own.T @ x[:, start:]
        self.cross += x.T @ colors
        self.count += len(x)

    def solve(
        self, strength: float, channels: Tensor | None = None
    ) -> tuple[Float[Tensor, "channel 3"], Float[Tensor, " 3"]]:
        """The ridge regression's matrix and bias, on some channels (None: all).

        The penalty of a weight is `strength` times its channel's mean square; the bias has none.
        """
        last = torch.tensor([len(self.gram) - 1])
        some = torch.arange(len(self.gram)) if channels is None else torch.cat([channels, last])
        gram = self.gram[some][:, some] / self.count
        diagonal = gram.diagonal()
        floor = 1e-9 * diagonal[:-1].mean()  # a channel that is always 0 has no scale
        diagonal[:-1] += strength * diagonal[:-1].clamp_min(floor)
        factor, failed = torch.linalg.cholesky_ex(gram, upper=True)  # reads the upper triangle
        if failed:
            raise InputError(
                f"a penalty of {strength}, too weak for {len(gram)} channels that depend on others",
                "a stronger one",
                "raise strengths, or read more pixels",
            )
        found = torch.cholesky_solve(self.cross[some] / self.count, factor, upper=True)
        return found[:-1].float(), found[-1].float()


@dataclass(frozen=True)
class Reading:
    """Pixels of samples [start, stop) of a split: what maps show there, and the image's colors."""

    sources: tuple[Source, ...]  # generators of the same samples; the image is the first one's
    images: str  # zarr group of the split's images at the study's own truncation
    taps: tuple[Tap, ...]
    size: int  # side of the grid of pixels, px; images are area-averaged to it
    fit: AppearanceFit
    split: str
    start: int
    stop: int

    def places(self, row: int) -> Int[np.ndarray, " pixel"]:
        """Pixels y * size + x of a sample, drawn evenly without replacement."""
        count = min(self.fit.pixels, self.size**2)
        return np.random.default_rng([self.fit.seed, row]).choice(self.size**2, count, False)


def _read(task: Reading) -> tuple[list[np.ndarray], np.ndarray]:
    """Hypercolumns [M, C] of each source and colors [M, 3], sample by sample."""
    columns: list[list[Tensor]] = [[] for _ in task.sources]
    colors = []
    for row in range(task.start, task.stop):
        psi, places = task.fit.psis[row % len(task.fit.psis)], task.places(row)
        for found, source in zip(columns, task.sources, strict=True):
            images = task.images if source is task.sources[0] else None
            maps, image = synthesize(source, task.taps, task.split, row, psi, images, task.size)
            pixels = hypercolumns([x[0] for x in maps.values()], places, task.size, False)
            found.append(pixels.cpu())
            if image is not None:
                colors.append(image.flatten(1).T[torch.from_numpy(places)])
    return [torch.cat(found).numpy() for found in columns], torch.cat(colors).numpy()


def synthesize(
    source: Source,
    taps: Sequence[Tap],
    split: str,
    row: int,
    psi: float,
    images: str | None,  # zarr group of images at the study's own truncation; None: no image
    size: int,  # px of the image
) -> tuple[dict[str, Tensor], Float[Tensor, "3 size size"] | None]:
    """Maps of taps, and the image, of a sample truncated by psi.

    The image is rounded and area-averaged as stored ones are. At the study's own truncation the
    stored one serves, and synthesis ends at the last tap.
    """
    latents, rows = Group(source.latents), slice(row, row + 1)
    stored = latents.attributes.get("truncation_psi") == psi
    generator, z = source.generator(), torch.from_numpy(latents.read(split, "z", rows))
    with torch.inference_mode(), record(generator, taps) as features:
        ws = generator.mapping(z.to(source.device), psi)
        short = images is None or stored
        drawn = generator.synthesis(ws, stop_at=taps[-1] if short else None)
    if images is None:
        return features, None
    if drawn is None:
        shown = Group(images).read(split, "images", rows)
    else:
        shown = to_uint8(drawn, Group(images).label_size)
    return features, F.interpolate(to_float(shown), (size, size), mode="area")[0]


def readings(
    sources: Sequence[Source],
    images: str,
    taps: Sequence[Tap],
    size: int,
    fit: AppearanceFit,
    split: str,
    samples: int,  # of the split, at most
) -> list[Reading]:
    """The split's first samples as tasks for `stream`; InputError if it has none."""
    total = min(samples, Group(sources[0].latents).splits.get(split, 0))
    if total == 0:
        raise InputError(f"no samples in {split}", "at least one", f"raise the size of {split}")
    stops = [min(start + PER_TASK, total) for start in range(0, total, PER_TASK)]
    some = tuple(sources), images, tuple(taps), size, fit, split
    return [Reading(*some, start, stop) for start, stop in pairwise([0, *stops])]


def stream(
    tasks: Sequence[Reading], what: str, num_workers: int
) -> Iterator[tuple[list[Tensor], Tensor]]:
    """Yield (hypercolumns [M, C] of each source, colors [M, 3]) task by task."""
    processes = workers.count(num_workers, tasks[0].sources[0].device, len(tasks))
    for columns, colors in workers.run(_read, tasks, what, processes):
        yield [torch.from_numpy(x) for x in columns], torch.from_numpy(colors)


def channels_of(taps: Sequence[Tap], some: Sequence[Tap]) -> Int64[Tensor, " channel"]:
    """Where the channels of some taps stand among those of all `taps`, in hypercolumns."""
    owners = [tap for tap in taps for _ in range(tap.channels)]
    return torch.tensor([i for i, tap in enumerate(owners) if tap in some])


def choose(
    moments: Moments,  # of the training pixels, with all taps of `held`
    held: Sequence[Reading],  # validation samples
    taps: Sequence[Tap],  # to be read
    num_workers: int,
) -> tuple[LSE, dict]:
    """Fit the colors for each strength; the validation samples choose. And the fit's facts."""
    fit, channels = held[0].fit, channels_of(held[0].taps, taps)
    found = [moments.solve(strength, channels) for strength in fit.strengths]
    matrix, bias = (torch.cat(parts, -1) for parts in zip(*found, strict=True))
    errors, values = torch.zeros(3 * len(found), dtype=torch.float64), []
    for (columns, *_), colors in stream(held, "choosing the strength", num_workers):
        read = columns[:, channels] @ matrix + bias
        errors += (read - colors.repeat(1, len(found))).double().square().sum(0)
        values.append(colors)
    spread = torch.cat(values).double()
    r2 = 1 - errors.view(-1, 3).sum(1) / (spread - spread.mean(0)).square().sum()
    best = int(r2.argmax())
    say(f"appearance: strength {fit.strengths[best]}, R2 {r2[best]:.4f} on validation samples")
    extractor = LSE(COLORS, taps, bias=True)
    extractor.set_matrix(found[best][0])
    extractor.restore(extractor.tensors() | {"bias": found[best][1]})
    scores = zip(fit.strengths, r2.tolist(), strict=True)
    return extractor.requires_grad_(False), {
        "strength": fit.strengths[best],
        "validation_r2": {str(strength): round(score, 5) for strength, score in scores},
        "pixels": moments.count,
        "channels": len(channels),
    }


def fit_appearance(
    source: Source,
    images: str,  # zarr group of images at the study's own truncation
    fit: AppearanceFit,
    num_workers: int = 0,
) -> tuple[LSE, dict]:
    """Fit the colors of training samples' pixels; validation samples choose the strength.

    Returns the extractor, and the facts of the fit.
    """
    taps = select(source.generator().taps, fit.max_tap_resolution)
    some = [source], images, taps, taps[-1].resolution, fit
    train = readings(*some, "train", fit.samples)
    held = readings(*some, "validation", fit.held_samples)  # before any work
    moments = Moments(sum(tap.channels for tap in taps))
    for (columns, *_), colors in stream(train, "reading colors", num_workers):
        moments.add(columns, colors)
    return choose(moments, held, taps, num_workers)
