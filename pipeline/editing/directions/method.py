"""Directions in latent space that need no labels: SeFa (Shen & Zhou, CVPR 2021), PCA, random ones.

Vectors are rows of float64 arrays, of unit length, with their largest entry positive.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.generators.contract import Generator
from pipeline.generators.latents import sample_z
from pipeline.runtime.errors import InputError

Vector = Float[np.ndarray, " w_dim"]
Vectors = Float[np.ndarray, "direction w_dim"]

BATCH = 4096  # z mapped at a time for the spread of w


@dataclass(frozen=True)
class LayerRange:
    """Some layers of a generator, one after another, and the rows of ws that an edit moves."""

    name: str  # all, 3-8, or 9- to the end
    layers: tuple[str, ...]
    rows: tuple[int, ...]


def layer_range(generator: Generator, name: str) -> LayerRange:
    """The layers `all`, `2-5`, `6-` or `3`, counted along generator.style_weights.

    A range without an end moves the rows of ws after its last layer, too: those to RGB.
    """
    layers, rows = list(generator.style_weights), generator.style_rows
    found = re.fullmatch(r"(\d+)(-(\d*))?", "0-" if name == "all" else name)
    first, last = (0, -1) if found is None else (int(found[1]), int(found[3] or len(layers) - 1))
    if found is not None and found[2] is None:
        last = first
    if found is None or not 0 <= first <= last < len(layers):
        raise InputError(
            f"layer range {name!r}",
            f"all, FIRST-LAST or FIRST- within 0-{len(layers) - 1}",
            "change ranges",
        )
    chosen = layers[first : last + 1]
    moved = {rows[layer] for layer in chosen}
    if found[2] == "-":
        moved |= set(range(max(moved), generator.num_ws))
    return LayerRange(name, tuple(chosen), tuple(sorted(moved)))


@dataclass(frozen=True)
class Factors:
    """Orthonormal directions with their eigenvalues, in descending order."""

    vectors: Vectors
    eigenvalues: Float[np.ndarray, " direction"]

    @property
    def gaps(self) -> Float[np.ndarray, " direction"]:
        """How much an eigenvalue exceeds the next one, relative to it; the last one's is 1.

        Directions of a small gap are arbitrary within the plane that they span.
        """
        following = np.append(self.eigenvalues[1:], 0.0)
        return (self.eigenvalues - following) / np.maximum(self.eigenvalues, 1e-300)


def factorize(weights: Sequence[Float[Tensor, "_ w_dim"]]) -> Factors:
    """SeFa: eigenvectors of A^T A, each row of A of unit length (eq 8 and the official code).

    A stacks the weights of all layers of a range. The eigenvalues add up to its number of rows.
    """
    stacked = torch.cat([weight.detach().double().cpu() for weight in weights])
    a = torch.nn.functional.normalize(stacked, dim=1).numpy()
    return _eigen(a.T @ a)


def _eigen(symmetric: Float[np.ndarray, "w_dim w_dim"]) -> Factors:
    eigenvalues, columns = np.linalg.eigh(symmetric)
    return Factors(with_sign(columns.T[::-1]), eigenvalues[::-1].copy())


def with_sign(vectors: Vectors) -> Vectors:
    """Each row times 1 or -1, so that its entry of the largest magnitude is positive."""
    largest = np.abs(vectors).argmax(1)
    signs = np.sign(np.take_along_axis(vectors, largest[:, None], 1))
    return vectors * np.where(signs == 0, 1.0, signs)


def random_directions(count: int, w_dim: int, seed: int) -> Vectors:
    """Unit vectors that point anywhere, each by chance."""
    drawn = np.random.default_rng(seed).standard_normal((count, w_dim))
    return with_sign(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


@dataclass(frozen=True)
class Spread:
    """Mean and covariance of w, as truncated; of z where w = z."""

    mean: Vector
    covariance: Float[np.ndarray, "w_dim w_dim"]

    def along(self, vectors: Vectors) -> Float[np.ndarray, " direction"]:
        """Standard deviation of w along each unit vector."""
        return np.sqrt(np.einsum("ij,jk,ik->i", vectors, self.covariance, vectors, optimize=True))

    @property
    def typical(self) -> float:
        """Root mean square, over all directions, of the standard deviation along them."""
        return float(np.sqrt(np.trace(self.covariance) / len(self.covariance)))


@torch.inference_mode()
def spread_of_w(
    generator: Generator,
    samples: int,  # the paper's PCA: 500,000
    truncation_psi: float,
    first_seed: int,  # one seed a sample
) -> Spread:
    """The exact moments of so many samples' w; sums in float64, about w_avg."""
    width = generator.w_dim
    total, products = np.zeros(width), np.zeros((width, width))
    for start in range(0, samples, BATCH):
        seeds = range(first_seed + start, first_seed + min(start + BATCH, samples))
        z = torch.from_numpy(sample_z(seeds, generator.z_dim)).to(generator.device)
        x = truncation_psi * (generator.style(z) - generator.w_avg)
        total = total + x.double().sum(0).cpu().numpy()
        products = products + (x.T @ x).double().cpu().numpy()
    mean = total / samples
    centered = (products - samples * np.outer(mean, mean)) / (samples - 1)
    return Spread(mean + generator.w_avg.double().cpu().numpy(), centered)


def principal(spread: Spread) -> Factors:
    """PCA of w: the paper's baseline (GANSpace). Of z it is a basis by chance, as there."""
    return _eigen(spread.covariance)


def move(
    ws: Float[Tensor, "sample num_ws w_dim"],
    vector: Vector,
    rows: Sequence[int],  # of ws
    amounts: Sequence[float] | Float[np.ndarray, " sample"],  # how far each sample goes
) -> Float[Tensor, "sample num_ws w_dim"]:
    """w' = w + alpha n on some rows of ws (eq 2, after truncation); the other rows as they were."""
    along = torch.as_tensor(np.outer(amounts, vector), dtype=ws.dtype, device=ws.device)
    moved = ws.clone()
    moved[:, list(rows)] += along[:, None]
    return moved


def project_out(vector: Vector, others: Vectors) -> Vector:
    """The unit vector nearest to `vector` that is orthogonal to `others` (InterFaceGAN, eq 9).

    Moving along it leaves the projections on the others, hence what they stand for, as they are.
    """
    basis = np.linalg.qr(others.T)[0] if len(others) else np.zeros((len(vector), 0))
    rest = vector - basis @ (basis.T @ vector)
    length = np.linalg.norm(rest)
    if length < 1e-6:
        raise InputError(
            "a direction that lies in the span of those to leave alone",
            "one with a part of its own",
            "leave fewer directions alone",
        )
    return rest / length


def to_positions(
    w: Vector, vector: Vector, positions: Sequence[float] | np.ndarray | np.ndarray
) -> Float[np.ndarray, "position w_dim"]:
    """W moved along a unit vector to given distances from the hyperplane through 0 normal to it."""
    return w + np.outer(np.asarray(positions) - w @ vector, vector)


def nearest(vector: Vector, candidates: Vectors) -> tuple[float, int]:
    """Cosine distance 1 - |cos| of a unit vector to the nearest candidate, and that one's index."""
    cosines = np.abs(candidates @ vector)
    index = int(cosines.argmax())
    return float(1 - cosines[index]), index


def chance_distances(
    w_dim: int, candidates: int, draws: int = 10_000, seed: int = 0
) -> Float[np.ndarray, " draw"]:
    """What `nearest` gives for so many vectors of an orthonormal basis drawn by chance.

    A unit vector's cosines with a random basis are the entries of a random unit vector.
    """
    distances = []
    rng = np.random.default_rng(seed)
    for _ in range(0, draws, 1000):
        drawn = rng.standard_normal((min(1000, draws), w_dim))
        largest = np.abs(drawn[:, :candidates]).max(1)
        distances.append(1 - largest / np.linalg.norm(drawn, axis=1))
    return np.concatenate(distances)[:draws]


def fit_boundary(
    low: Float[np.ndarray, "_ w_dim"], high: Float[np.ndarray, "_ w_dim"], ridge: float
) -> Vector:
    """The unit normal, towards `high`, of a linear boundary between two groups of latents.

    A least-squares classifier with targets -1 and 1; its penalty is `ridge` times the mean square
    of a sample. It is solved among samples, which are fewer than dimensions.
    """
    x = np.concatenate([low, high])
    x = x - (low.mean(0) + high.mean(0)) / 2
    y = np.repeat([-1.0, 1.0], [len(low), len(high)])
    gram = x @ x.T
    normal = x.T @ np.linalg.solve(gram + ridge * np.trace(gram) / len(x) * np.eye(len(x)), y)
    return normal / np.linalg.norm(normal)
