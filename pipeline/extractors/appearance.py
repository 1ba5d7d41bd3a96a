"""Linear appearance: a generator's image as a linear reading of its feature maps.

What eq (1) of Xu & Zheng (CVPR 2021) does for classes, done for red, green and blue by ridge
regression. The image is then had, at the size of the finest map read, without synthesizing it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
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

    def add(self, columns: Float[Tensor, "pixel channel"], colors: Float[Tensor, "pixel 3"]):
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
        factor = torch.linalg.cholesky(gram, upper=True)  # reads the upper triangle alone
        found = torch.cholesky_solve(self.cross[some] / self.count, factor, upper=True)
        return found[:-1].float(), found[-1].float()


@dataclass(frozen=True)
class Reading:
    """Pixels of samples [start, stop) of a split to be read, with their colors."""

    source: Source
    images: str  # zarr group of the split's images at the study's own truncation
    taps: tuple[Tap, ...]
    split: str
    start: int
    stop: int
    psis: tuple[float, ...]  # sample i has the i-th, in turn
    pixels: int
    seed: int


def _read(task: Reading) -> tuple[np.ndarray, np.ndarray]:
    """Hypercolumns [M, C] and colors [M, 3] of the task's pixels, sample by sample."""
    size, columns, colors = task.taps[-1].resolution, [], []
    for i in range(task.start, task.stop):
        psi = task.psis[i % len(task.psis)]
        features, (image,) = synthesize(task.source, task.images, task.taps, task.split, [i], psi)
        rng = np.random.default_rng([task.seed, i])
        places = rng.choice(size * size, min(task.pixels, size * size), replace=False)
        maps = [features[tap.name][0] for tap in task.taps]
        columns.append(hypercolumns(maps, places, size, align_corners=False).cpu())
        colors.append(image.flatten(1).T[torch.from_numpy(places)].cpu())
    return torch.cat(columns).numpy(), torch.cat(colors).numpy()


def synthesize(
    source: Source, images: str, taps: Sequence[Tap], split: str, rows: Sequence[int], psi: float
) -> tuple[dict[str, Tensor], Float[Tensor, "sample 3 size size"]]:
    """Maps of taps, and images area-averaged to the finest one's size, of samples truncated by psi.

    Images are rounded as stored ones are. At the study's own truncation these serve, and synthesis
    ends at the last tap.
    """
    generator, group, latents = source.generator(), Group(images), Group(source.latents)
    z = torch.from_numpy(np.stack([latents.read(split, "z", slice(i, i + 1))[0] for i in rows]))
    size, kept = taps[-1].resolution, max(taps[-1].resolution, group.label_size)
    stored = latents.attributes.get("truncation_psi") == psi and kept == group.label_size
    with torch.inference_mode(), record(generator, taps) as features:
        ws = generator.mapping(z.to(source.device), psi)
        drawn = generator.synthesis(ws, stop_at=taps[-1] if stored else None)
    if drawn is None:
        values = np.stack([group.read(split, "images", slice(i, i + 1))[0] for i in rows])
    else:
        values = to_uint8(drawn, kept)
    return features, F.interpolate(to_float(values), (size, size), mode="area").to(source.device)


def _tasks(source: Source, images: str, split: str, samples: int, fit: AppearanceFit) -> list:
    total = Group(source.latents).splits.get(split, 0)
    if total == 0:
        raise InputError(f"no samples in {split}", "at least one", f"raise the size of {split}")
    taps, last = select(source.generator().taps, fit.max_tap_resolution), min(samples, total)
    return [
        Reading(
            source,
            images,
            taps,
            split,
            start,
            min(start + PER_TASK, last),
            fit.psis,
            fit.pixels,
            fit.seed,
        )
        for start in range(0, last, PER_TASK)
    ]


def _stream(tasks: Sequence[Reading], what: str, num_workers: int) -> Iterator[tuple]:
    processes = workers.count(num_workers, tasks[0].source.device, len(tasks))
    for columns, colors in workers.run(_read, tasks, what, processes):
        yield torch.from_numpy(columns), torch.from_numpy(colors)


def fit_appearance(
    source: Source,
    images: str,  # zarr group of images at the study's own truncation
    fit: AppearanceFit,
    num_workers: int = 0,
) -> tuple[LSE, dict]:
    """Fit the colors of training samples' pixels; validation samples choose the strength.

    Returns the extractor, and the facts of the fit.
    """
    tasks = _tasks(source, images, "train", fit.samples, fit)
    held = _tasks(source, images, "validation", fit.held_samples, fit)
    taps = tasks[0].taps
    moments = Moments(sum(tap.channels for tap in taps))
    for columns, colors in _stream(tasks, "reading colors", num_workers):
        moments.add(columns, colors)
    found = [moments.solve(strength) for strength in fit.strengths]
    errors = torch.zeros(len(found), dtype=torch.float64)
    values = []
    for columns, colors in _stream(held, "choosing the strength", num_workers):
        values.append(colors)
        for i, (matrix, bias) in enumerate(found):
            errors[i] += (columns @ matrix + bias - colors).square().sum()
    scatter = torch.cat(values).double()
    r2 = 1 - errors / (scatter - scatter.mean(0)).square().sum()
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
        "channels": len(moments.gram) - 1,
    }
