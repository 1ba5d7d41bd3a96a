"""Multinomial logistic regression on weighted hypercolumns: preconditioned L-BFGS, many L2 at once.

Fitting an LSE is a convex problem (eq 2 of Xu & Zheng); nothing obliges anyone to use Adam.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.runtime.devices import fast_bfloat16
from pipeline.runtime.errors import InputError
from pipeline.runtime.workers import keep_freed_memory

HISTORY = 8
GRAM_ROWS = 8_192
STORED = torch.bfloat16  # what hypercolumns are kept in for a fit
ROWS = 16_384  # of the matrix at a time, where it is scaled or summed
CACHED_ROWS = 128  # of it at a time, where it is converted for a product: 3 MB at most
LOGIT_ROWS = 4_096  # of the logits at a time: what is done to them stays in a CPU's cache


@dataclass(frozen=True)
class Layered:
    """Rows of eq (8) of Xu & Zheng: x [M, C], then x with all taps but one at 0, for each tap.

    Never written out: a product costs what one with x does.
    """

    x: Tensor  # [M, C]
    channels: tuple[int, ...]  # of each tap

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and channels."""
        return len(self.x) * (1 + len(self.channels)), self.x.shape[1]

    @property
    def device(self) -> torch.device:
        """Where x is."""
        return self.x.device

    def __len__(self) -> int:
        return self.shape[0]

    def times(self, matrix: Tensor) -> Tensor:
        """The product [(1 + taps) M, K] with matrix [C, K] in float32."""
        pairs = zip(self.x.split(self.channels, 1), matrix.split(self.channels), strict=True)
        parts = [times(x, part) for x, part in pairs]
        return torch.cat([sum(parts), *parts])

    def transposed_times(self, values: Tensor) -> Tensor:
        """The product [C, K] of the transposed rows with values [(1 + taps) M, K] in float32."""
        whole, *own = values.split(len(self.x))
        pairs = zip(self.x.split(self.channels, 1), own, strict=True)
        return torch.cat([transposed_times(x, whole + part) for x, part in pairs])


@dataclass(frozen=True)
class Problem:
    """Scaled features, classes and weights of sampled pixels.

    The scale divides by each channel's root mean square and is folded into the solution; nothing
    is centered, so that a class remains a cone: scaling a pixel's vector keeps its label.
    """

    x: Tensor | Layered  # [M, C] bfloat16 or float32
    y: Tensor  # [M] int64
    weights: Tensor  # [M] float32, sum 1
    scale: Tensor  # [C] float32
    num_classes: int
    bias: bool


def problem(
    columns: Tensor,
    y: Tensor,
    weights: Tensor,
    num_classes: int,
    bias: bool,
    power: float = 1.0,  # divide each channel by its root mean square ** power
) -> Problem:
    """Set a fit up from hypercolumns [M, C]; `columns` is scaled in place.

    Below 1, `power` leaves strong channels strong. The channels' mean power is 1 in any case, so
    that an L2 strength means the same.
    """
    if len(columns) == 0:
        raise InputError("no pixels to fit on", "at least one", "sample a training split")
    weights = (weights / weights.sum()).float()
    square = torch.zeros(columns.shape[1], device=columns.device)
    for x, w in zip(columns.split(ROWS), weights.split(ROWS), strict=True):
        square += w @ x.float().square()
    scale = square.sqrt().clamp_min(1e-12)
    if power != 1.0:
        scale, root = scale**power, scale
        scale *= (root / scale).square().mean().sqrt()
    inverse = 1 / scale
    for x in columns.split(ROWS):
        x.copy_(x.float() * inverse)
    return Problem(columns, y.long(), weights, scale, num_classes, bias)


def layered(data: Problem, channels: tuple[int, ...], layer_weight: float) -> Problem:
    """Eq (8): the loss of the sum over taps, plus `layer_weight` times that of each tap alone."""
    num = len(channels)
    weights = torch.cat([data.weights, *[layer_weight * data.weights] * num])
    rows = Layered(data.x, channels)
    y = data.y.repeat(1 + num)
    return Problem(rows, y, weights, data.scale, data.num_classes, bias=False)


@dataclass
class Solution:
    """Matrices [R, C, K] and biases [R, K] for R values of L2, in the original features' units."""

    matrix: Tensor
    bias: Tensor | None
    objective: list[list[float]]  # per iteration, per L2 value


def times(x: Tensor | Layered, matrix: Tensor) -> Tensor:
    """x [M, C] @ matrix [C, K] in float32."""
    if isinstance(x, Layered):
        return x.times(matrix)
    if x.dtype == torch.float32:
        return x @ matrix
    if fast_bfloat16(x.device.type):
        return (x @ matrix.to(x.dtype)).float()
    product = torch.empty(len(x), matrix.shape[1], device=x.device)
    for start, part in _converted(x):
        torch.mm(part, matrix, out=product[start : start + len(part)])
    return product


def transposed_times(x: Tensor | Layered, values: Tensor) -> Tensor:
    """x.T [C, M] @ values [M, K] in float32, summed block by block."""
    if isinstance(x, Layered):
        return x.transposed_times(values)
    total = torch.zeros(values.shape[1], x.shape[1], device=x.device)  # the quicker way round
    if x.dtype == torch.float32 or fast_bfloat16(x.device.type):
        for part, value in zip(x.split(ROWS), values.split(ROWS), strict=True):
            total += value.to(x.dtype).T @ part
    else:
        for start, part in _converted(x):
            total.addmm_(values[start : start + len(part)].T, part)
    return total.T


def _converted(x: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(first row, rows in float32) of all of x, in one buffer that stays in a CPU's cache.

    This costs a sixth of a product; products in bfloat16 without units for it take five times as
    long, and all of x in float32 twice the memory.
    """
    buffer = torch.empty(min(CACHED_ROWS, len(x)), x.shape[1], device=x.device)
    for start in range(0, len(x), CACHED_ROWS):
        rows = x[start : start + CACHED_ROWS]
        yield start, buffer[: len(rows)].copy_(rows)


def moments(data: Problem, seed: int) -> Tensor:
    """Second moments [C, C] of the features, on some rows."""
    rng = torch.Generator(data.weights.device).manual_seed(seed)
    count = min(GRAM_ROWS, len(data.x))
    rows = torch.multinomial(data.weights, count, replacement=True, generator=rng)
    gram = torch.zeros(data.x.shape[1], data.x.shape[1], device=data.x.device)
    for part in rows.split(2048):  # in float32: bfloat16 noise would drown the small eigenvalues
        x = data.x[part].float()
        gram.addmm_(x.T, x, alpha=1 / count)
    return gram


def preconditioner(second_moments: Tensor, ridge: float) -> Tensor:
    """Cholesky factor [C, C] of the features' second moments plus a ridge.

    For softmax regression the Hessian is close to (second moments) x (K x K), so this is what
    makes a dozen iterations enough.
    """
    gram = second_moments.clone()
    gram.diagonal().add_(ridge)
    return torch.linalg.cholesky(gram)


def lbfgs(
    data: Problem,
    l2: list[float],  # strengths in the scaled features' units; solved jointly
    iterations: int,
    precondition: bool = True,
    seed: int = 0,
    # Called with (iteration, Solution so far); may return which of the values to go on with.
    on_iteration: Callable[[int, "Solution"], Sequence[int] | None] | None = None,
    second_moments: Tensor | None = None,  # to precondition with; None: of the data
) -> Solution:
    """Minimize mean cross-entropy + l2/2 |theta|^2 for every l2 by preconditioned L-BFGS.

    theta [R, C + 1, K] starts at 0; the last row is the bias (kept at 0 if there is none). The
    logits Z = X theta are carried along, so a line search costs no pass over X: an iteration is
    one product with X and one with its transpose.
    """
    keep_freed_memory()
    num, channels, classes = len(l2), data.x.shape[1], data.num_classes
    device = data.x.device
    strength = torch.tensor(l2, device=device, dtype=torch.float32)
    factor = None
    if precondition:
        gram = moments(data, seed) if second_moments is None else second_moments
        factor = preconditioner(gram, max(min(l2), 1e-4) + 1e-3)
    theta = torch.zeros(num, channels + 1, classes, device=device)
    z = torch.zeros(len(data.x), num, classes, device=device)
    loss, gradient = _loss_gradient(data, z, theta, strength)
    history: list[tuple[Tensor, Tensor, Tensor]] = []
    objective = [loss.tolist()]
    for iteration in range(1, iterations + 1):
        direction = -_two_loop(gradient, history, factor, data.bias)
        slope = (direction * gradient).sum((1, 2))
        zd = _logits(data, direction)
        first = 1.0 if history else 1.0 / 4
        step, loss = _line_search(
            data,
            z,
            zd,
            theta,
            direction,
            strength,
            loss,
            slope,
            first * (1 if factor is not None else 4),
        )
        theta_new = theta + step[:, None, None] * direction
        z = z.addcmul_(zd, step[None, :, None])
        _, gradient_new = _loss_gradient(data, z, theta_new, strength)
        s, q = theta_new - theta, gradient_new - gradient
        curvature = (s * q).sum((1, 2))
        history = [*history[-HISTORY + 1 :], (s, q, curvature)]
        theta, gradient = theta_new, gradient_new
        objective.append(loss.tolist())
        kept = on_iteration and on_iteration(iteration, _solution(data, theta, objective))
        if kept is not None:
            rows = torch.tensor(kept, device=device)
            strength, loss, theta, gradient = (v[rows] for v in (strength, loss, theta, gradient))
            history = [tuple(v[rows] for v in step) for step in history]
            z = z[:, rows]
    return _solution(data, theta, objective)


def _solution(data: Problem, theta: Tensor, objective: list) -> Solution:
    matrix = theta[:, :-1] / data.scale[None, :, None]
    return Solution(matrix, theta[:, -1].clone() if data.bias else None, list(objective))


def _logits(data: Problem, theta: Tensor) -> Tensor:
    """[M, R, K] for theta [R, C + 1, K]."""
    num, _, classes = theta.shape
    flat = theta[:, :-1].permute(1, 0, 2).reshape(-1, num * classes)
    z = times(data.x, flat).view(-1, num, classes)
    return z + theta[None, :, -1] if data.bias else z


def _blocks(data: Problem) -> Iterator[slice]:
    """Rows of the logits to work on at a time."""
    step = LOGIT_ROWS if data.weights.device.type == "cpu" else len(data.weights)
    return (slice(start, start + step) for start in range(0, len(data.weights), step))


def _cross_entropy(data: Problem, z: Tensor, zd: Tensor, step: Tensor) -> Tensor:
    """The weighted cross-entropy [R] of the logits z + step zd."""
    total = torch.zeros_like(step)
    for rows in _blocks(data):
        moved = torch.addcmul(z[rows], zd[rows], step[None, :, None])
        picked = moved.gather(2, data.y[rows, None, None].expand(-1, len(step), 1))[..., 0]
        total += data.weights[rows] @ (moved.logsumexp(2) - picked)
    return total


def _loss_residual(data: Problem, z: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted cross-entropy [R], and its gradient [M, R, K] in the logits z."""
    loss, residual = torch.zeros(z.shape[1], device=z.device), torch.empty_like(z)
    for rows in _blocks(data):
        logits, weights = z[rows], data.weights[rows, None]
        own = data.y[rows, None, None].expand(-1, z.shape[1], 1)
        top = logits.amax(2, keepdim=True)
        shares = (logits - top).exp_()
        total = shares.sum(2)
        loss += (weights * (total.log() + top[..., 0] - logits.gather(2, own)[..., 0])).sum(0)
        shares *= (weights / total)[..., None]
        residual[rows] = shares.scatter_add_(2, own, -weights[..., None].expand_as(own))
    return loss, residual


def _loss_gradient(
    data: Problem, z: Tensor, theta: Tensor, strength: Tensor
) -> tuple[Tensor, Tensor]:
    num, _, classes = theta.shape
    loss, residual = _loss_residual(data, z)
    loss = loss + 0.5 * strength * theta[:, :-1].square().sum((1, 2))
    # The weights sum to 1 over M rows: scale up before a bfloat16 product, down after.
    flat = residual.view(len(z), num * classes)
    gradient = torch.empty_like(theta)
    gradient[:, :-1] = (
        (transposed_times(data.x, flat * len(z)) / len(z)).view(-1, num, classes).permute(1, 0, 2)
    )
    gradient[:, :-1] += strength[:, None, None] * theta[:, :-1]
    gradient[:, -1] = residual.sum(0) if data.bias else 0
    return loss, gradient


def _two_loop(gradient: Tensor, history: list, factor: Tensor | None, bias: bool) -> Tensor:
    """The L-BFGS product H g (Nocedal & Wright, alg 7.4), for each of R problems at once."""
    q = gradient.clone()
    usable = [(s, y, sy) for s, y, sy in history]
    alphas = []
    for s, y, sy in reversed(usable):
        alpha = torch.where(sy > 1e-12, (s * q).sum((1, 2)) / sy.clamp_min(1e-12), 0)
        alphas.append(alpha)
        q = q - alpha[:, None, None] * y
    gamma = torch.ones(len(q), device=q.device)
    q = _apply(q, factor)
    if usable:
        s, y, sy = usable[-1]
        yhy = (y * _apply(y, factor)).sum((1, 2))
        gamma = torch.where(sy > 1e-12, sy / yhy.clamp_min(1e-12), 1)
    r = gamma[:, None, None] * q
    for (s, y, sy), alpha in zip(usable, reversed(alphas), strict=True):
        beta = torch.where(sy > 1e-12, (y * r).sum((1, 2)) / sy.clamp_min(1e-12), 0)
        r = r + (alpha - beta)[:, None, None] * s
    if not bias:
        r[:, -1] = 0
    return r


def _apply(q: Tensor, factor: Tensor | None) -> Tensor:
    if factor is None:
        return q
    num, rows, classes = q.shape
    flat = q[:, :-1].permute(1, 0, 2).reshape(rows - 1, num * classes)
    solved = torch.cholesky_solve(flat, factor).view(rows - 1, num, classes).permute(1, 0, 2)
    return torch.cat([solved, q[:, -1:]], 1)


def _line_search(
    data: Problem,
    z: Tensor,
    zd: Tensor,
    theta: Tensor,
    direction: Tensor,
    strength: Tensor,
    loss: Tensor,
    slope: Tensor,
    first: float,
) -> tuple[Tensor, Tensor]:
    """Backtracking (Armijo, 1e-4) from `first`, which doubles while that helps; per problem."""
    tt, td, dd = (
        (a[:, :-1] * b[:, :-1]).sum((1, 2))
        for a, b in ((theta, theta), (theta, direction), (direction, direction))
    )

    def value(step: Tensor) -> Tensor:
        penalty = 0.5 * strength * (tt + 2 * step * td + step.square() * dd)
        return _cross_entropy(data, z, zd, step) + penalty

    step = torch.full_like(loss, first)
    best_step, best = torch.zeros_like(step), loss.clone()
    grow = torch.ones_like(step, dtype=torch.bool)
    for _ in range(12):
        now = value(step)
        better = now < best
        best_step, best = torch.where(better, step, best_step), torch.where(better, now, best)
        enough = best <= loss + 1e-4 * best_step * slope
        grow &= better
        done = (best_step > 0) & enough & ~grow
        if bool((done | (slope >= 0)).all()):
            break
        step = torch.where(grow, step * 2, torch.where(best_step > 0, step, step / 2))
    return best_step, best
