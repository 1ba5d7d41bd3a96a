from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.analysis.geometry import tap_fits
from pipeline.analysis.geometry.centers import greedy
from pipeline.analysis.geometry.tap_fits import Pixels
from pipeline.extractors import problems, solvers
from pipeline.extractors.fitting import Columns, validation_miou
from pipeline.extractors.problems import Layered
from pipeline.generators.taps import Tap

CLASSES = ("bg", "skin", "nose")
TAPS = (Tap("a", "a", 3, 4), Tap("b", "b", 5, 8), Tap("c", "c", 2, 16), Tap("d", "d", 4, 32))
CHANNELS = tuple(tap.channels for tap in TAPS)


def columns(num: int, seed: int, informative=(1, 3)) -> Columns:
    """Noise, but for two taps: one tells nose from the rest, one skin from the rest."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(num, sum(CHANNELS), generator=rng)
    y = torch.randint(0, 3, (num,), generator=rng)
    parts = x.split(CHANNELS, 1)
    parts[informative[0]][:, 0] += 2.5 * (y == 2)
    parts[informative[1]][:, 1] += 2.0 * (y == 1)
    weights = torch.rand(num, generator=rng) + 0.5
    return Columns(x * torch.linspace(0.1, 10, x.shape[1]), y, weights)


def pixels(taps=TAPS, precondition: bool = True, num: int = 400) -> Pixels:
    width = sum(tap.channels for tap in taps)
    train, held = columns(num, 0), columns(200, 1)
    data = problems.problem(train.x[:, :width].clone(), train.y, train.weights, 3, bias=False)
    held = Columns(held.x[:, :width] / data.scale, held.y, held.weights)
    moments = problems.moments(data, 0) if precondition else None
    return Pixels(CLASSES, tuple(taps), False, data, held, moments)


def written_out(x: torch.Tensor) -> torch.Tensor:
    """The rows of eq (8), with zeros."""
    masks = torch.block_diag(*[torch.ones(1, c) for c in CHANNELS])
    return torch.cat([x, *[x * mask for mask in masks]])


def test_products_with_layered_rows_are_those_with_the_rows_written_out():
    x = torch.randn(7, sum(CHANNELS))
    rows, full = Layered(x, CHANNELS), written_out(x)
    assert rows.shape == full.shape and len(rows) == len(full)
    matrix, values = torch.randn(sum(CHANNELS), 6), torch.randn(len(full), 6)
    torch.testing.assert_close(problems.times(rows, matrix), full @ matrix)
    torch.testing.assert_close(problems.transposed_times(rows, values), full.T @ values)


def objective_eq8(given: Pixels, theta, layer_weight: float, l2: float):
    """Eq (8) as it is printed, plus the L2 term."""

    def loss(logits):
        return given.data.weights @ torch.nn.functional.cross_entropy(
            logits, given.data.y, reduction="none"
        )

    pairs = zip(given.data.x.split(CHANNELS, 1), theta.split(CHANNELS), strict=True)
    parts = [x @ part for x, part in pairs]
    value = loss(sum(parts)) + layer_weight * sum(map(loss, parts))
    return value + l2 / 2 * theta.square().sum()


def test_the_layered_fit_is_the_minimum_of_eq_8():
    given, l2 = pixels(), 0.01
    data = problems.layered(given.data, CHANNELS, 0.1)
    found = solvers.lbfgs(data, [l2], 80, precondition=False)
    theta = (found.matrix[0] * given.data.scale[:, None]).requires_grad_(True)
    value = objective_eq8(given, theta, 0.1, l2)
    assert found.objective[-1][0] == pytest.approx(float(value.detach()), rel=1e-5)
    (gradient,) = torch.autograd.grad(value, theta)
    assert float(gradient.abs().max()) < 1e-3
    other = objective_eq8(given, theta.detach() * 0.9, 0.1, l2)
    assert other > value, "a minimum, not just a flat spot"


def test_with_one_tap_eq_8_is_eq_1_with_a_weaker_l2():
    given = pixels(TAPS[:1])
    layered = problems.layered(given.data, CHANNELS[:1], 0.1)
    ours = solvers.lbfgs(layered, [0.022], 60, precondition=False).matrix
    plain = solvers.lbfgs(given.data, [0.02], 60, precondition=False).matrix
    torch.testing.assert_close(ours, plain, atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize("precondition", [True, False])
def test_a_fit_of_some_taps_is_the_fit_of_their_channels(precondition):
    given, chosen = pixels(precondition=precondition), (1, 3)
    found = tap_fits.fit_taps(given, chosen, [0.01], 40)
    x = torch.cat([given.data.x.split(CHANNELS, 1)[i] for i in chosen], 1)
    ones = torch.ones(x.shape[1])
    alone = problems.Problem(x, given.data.y, given.data.weights, ones, 3, False)
    wanted = solvers.lbfgs(alone, [0.01], found.iteration, precondition).matrix[0]
    torch.testing.assert_close(found.matrix, wanted, atol=1e-4, rtol=1e-3)


def test_preconditioned_and_plain_fits_of_eq_8_agree():
    fits = [tap_fits.fit_layered(pixels(precondition=p), 0.1, [0.01], 60) for p in (True, False)]
    predicted = [(pixels().held.x @ fit.matrix).argmax(1) for fit in fits]
    assert (predicted[0] == predicted[1]).float().mean() > 0.97


def test_greedy_selection_finds_the_planted_taps():
    given = pixels()
    nested = greedy(range(4), lambda t: tap_fits.fit_taps(given, t, [0.01], 30).miou, 2)
    assert set(nested[1]) == {1, 3}
    fits = [tap_fits.fit_taps(given, taps, [0.01], 30).miou for taps in ((0, 2), *nested)]
    assert fits[2] > fits[1] > fits[0] + 0.1


def test_the_l2_and_the_iteration_of_a_fit_are_the_best_on_validation():
    given, l2, seen = pixels(), [1.0, 0.01], {}
    data = replace(given.data, scale=torch.ones_like(given.data.scale))

    def look(iteration, solution):
        for strength, score in zip(l2, validation_miou(given.held, solution, 3), strict=True):
            seen[strength, iteration] = score

    moments = given.moments
    solvers.lbfgs(data, l2, 20, on_iteration=look, second_moments=moments)
    fit = tap_fits.fit_taps(given, range(4), l2, 20)
    settled = {at: score for at, score in seen.items() if at[1] >= 5}
    assert fit.miou == max(settled.values()) == seen[fit.l2, fit.iteration]
    assert len(set(settled.values())) > 1, "there was something to choose"


def test_an_extractor_of_some_taps_ignores_the_others():
    given = pixels()
    fit = tap_fits.fit_taps(given, (0, 2), [0.01], 10)
    lse = given.extractor(fit.matrix, (0, 2))
    assert lse.taps == TAPS
    read = [bool(weight.any()) for weight in lse.weights]
    assert read == [True, False, True, False]
    raw = torch.cat([given.data.x.split(CHANNELS, 1)[i] for i in (0, 2)], 1)
    logits = raw @ fit.matrix
    full = given.data.x * given.data.scale
    parts = zip(full.split(CHANNELS, 1), lse.weights, strict=True)
    torch.testing.assert_close(sum(x @ w.T for x, w in parts), logits)


def test_thinned_pixels_are_every_step_th_with_weights_of_sum_1():
    few = pixels().thinned(4)
    assert len(few.data.x) == 100
    np.testing.assert_allclose(float(few.data.weights.sum()), 1, rtol=1e-6)
    torch.testing.assert_close(few.data.x, pixels().data.x[::4])
