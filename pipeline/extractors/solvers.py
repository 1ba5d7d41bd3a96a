"""Multinomial logistic regression on weighted hypercolumns: preconditioned L-BFGS, many L2 at once.

Fitting an LSE is a convex problem (eq 2 of Xu & Zheng); nothing obliges anyone to use Adam.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pipeline.extractors.problems import Problem, moments, times, transposed_times
from pipeline.runtime.workers import keep_freed_memory

HISTORY = 8
LOGIT_ROWS = 4_096  # of the logits at a time: what is done to them stays in a CPU's cache


@dataclass
class Solution:
    """Matrices [R, C, K] and biases [R, K] for R values of L2, in the original features' units."""

    matrix: Tensor
    bias: Tensor | None
    objective: list[list[float]]  # per iteration, per L2 value


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
    start: Tensor | None = None,  # matrix [C, K] to begin at, in the features' units; None: 0
) -> Solution:
    """Minimize mean cross-entropy + l2/2 |theta|^2 for every l2 by preconditioned L-BFGS.

    theta [R, C + 1, K] has the bias as its last row, 0 at the start (and kept so without one). The
    logits Z = X theta are carried along, so a line search costs no pass over X: an iteration is
    one product with X and one with its transpose.
    """
    keep_freed_memory()
    device = data.x.device
    strength = torch.tensor(l2, device=device, dtype=torch.float32)
    factor = None
    if precondition:
        gram = moments(data, seed) if second_moments is None else second_moments
        factor = preconditioner(gram, max(min(l2), 1e-4) + 1e-3)
    theta, z = _begin(data, len(l2), start)
    loss, gradient = _loss_gradient(data, z, theta, strength)
    history: list[tuple[Tensor, Tensor, Tensor]] = []
    objective = [loss.tolist()]
    for iteration in range(1, iterations + 1):
        direction = -_two_loop(gradient, history, factor, data.bias)
        line = _Line(data, z, _logits(data, direction), theta, direction, strength)
        first = (1.0 if history else 1.0 / 4) * (1 if factor is not None else 4)
        slope = (direction * gradient).sum((1, 2))
        step, loss = _line_search(line, loss, slope, first)
        theta_new = theta + step[:, None, None] * direction
        z = z.addcmul_(line.zd, step[None, :, None])
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
            history = [(s[rows], q[rows], sq[rows]) for s, q, sq in history]
            z = z[:, rows]
    return _solution(data, theta, objective)


def _begin(data: Problem, num: int, start: Tensor | None) -> tuple[Tensor, Tensor]:
    """theta [R, C + 1, K] of R problems at `start`, or 0, and its logits [M, R, K]."""
    theta = torch.zeros(num, data.x.shape[1] + 1, data.num_classes, device=data.x.device)
    if start is None:
        return theta, torch.zeros(len(data.x), num, data.num_classes, device=data.x.device)
    theta[:, :-1] = start.to(theta.device) * data.scale[:, None]
    return theta, _logits(data, theta)


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


@dataclass(frozen=True)
class _Line:
    """The objective of R problems along a direction of each: a step costs no pass over X."""

    data: Problem
    z: Tensor  # logits [M, R, K]
    zd: Tensor  # logits of the direction
    theta: Tensor  # [R, C + 1, K]
    direction: Tensor
    strength: Tensor  # of L2, [R]

    @cached_property
    def _products(self) -> tuple[Tensor, Tensor, Tensor]:
        theta, direction = self.theta[:, :-1], self.direction[:, :-1]
        return (
            (theta * theta).sum((1, 2)),
            (theta * direction).sum((1, 2)),
            (direction * direction).sum((1, 2)),
        )

    def value(self, step: Tensor) -> Tensor:
        """Objectives [R] after a step [R]."""
        tt, td, dd = self._products
        penalty = 0.5 * self.strength * (tt + 2 * step * td + step.square() * dd)
        return _cross_entropy(self.data, self.z, self.zd, step) + penalty


def _line_search(line: _Line, loss: Tensor, slope: Tensor, first: float) -> tuple[Tensor, Tensor]:
    """Backtracking (Armijo, 1e-4) from `first`, which doubles while that helps; per problem."""
    step = torch.full_like(loss, first)
    best_step, best = torch.zeros_like(step), loss.clone()
    grow = torch.ones_like(step, dtype=torch.bool)
    for _ in range(12):
        now = line.value(step)
        better = now < best
        best_step, best = torch.where(better, step, best_step), torch.where(better, now, best)
        enough = best <= loss + 1e-4 * best_step * slope
        grow &= better
        done = (best_step > 0) & enough & ~grow
        if bool((done | (slope >= 0)).all()):
            break
        step = torch.where(grow, step * 2, torch.where(best_step > 0, step, step / 2))
    return best_step, best
