import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from pipeline.extractors import problems
from pipeline.extractors.problems import problem, times, transposed_times
from pipeline.extractors.solvers import lbfgs
from pipeline.runtime.errors import InputError

CHANNELS, CLASSES = 6, 4


def sample(num=400, seed=0):
    """Badly scaled, correlated features with an offset; labels of a noisy linear rule; weights."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((CHANNELS, CHANNELS)) + 2 * np.eye(CHANNELS)
    x = (rng.standard_normal((num, CHANNELS)) @ mix + 0.5) * 10.0 ** np.linspace(-1, 1, CHANNELS)
    scores = x / x.std(0) @ rng.standard_normal((CHANNELS, CLASSES)) + [0, 1, -1, 0]
    y = (scores + rng.gumbel(size=scores.shape)).argmax(1)
    weights = rng.random(num) + 0.1
    return x, y, weights / weights.sum()


def prepare(x, y, weights, bias):
    tensors = torch.from_numpy(x).float(), torch.from_numpy(y), torch.from_numpy(weights).float()
    return problem(*tensors, CLASSES, bias)


def reference(x, y, weights, l2, bias):
    """The objective of the docstring in float64, minimized by scipy."""
    scale = np.sqrt(weights @ x**2)
    x = x / scale
    hit = np.eye(CLASSES)[y]

    def loss(flat):
        theta = flat.reshape(CHANNELS + 1, CLASSES)
        z = x @ theta[:-1] + (theta[-1] if bias else 0)
        top = z.max(1, keepdims=True)
        log_sum = top[:, 0] + np.log(np.exp(z - top).sum(1))
        residual = (np.exp(z - log_sum[:, None]) - hit) * weights[:, None]
        value = weights @ (log_sum - (z * hit).sum(1)) + l2 / 2 * (theta[:-1] ** 2).sum()
        gradient = np.vstack([x.T @ residual + l2 * theta[:-1], residual.sum(0) * bias])
        return value, gradient.ravel()

    start = np.zeros((CHANNELS + 1) * CLASSES)
    options = {"maxiter": 10_000, "gtol": 1e-10, "ftol": 1e-15}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    theta = found.x.reshape(CHANNELS + 1, CLASSES)
    return theta[:-1] / scale[:, None], theta[-1], found.fun


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("precondition", [False, True], ids=["plain", "preconditioned"])
def test_finds_the_minimum_that_scipy_finds(bias, precondition):
    x, y, weights = sample()
    l2 = [0.03, 0.001]
    iterations = 60 if precondition else 300
    found = lbfgs(prepare(x, y, weights, bias), l2, iterations, precondition)
    for i, strength in enumerate(l2):
        matrix, offset, value = reference(x, y, weights, strength, bias)
        assert found.objective[-1][i] == pytest.approx(value, rel=1e-5)
        ours = found.matrix[i].double().numpy()
        # In units of what each channel contributes, as the channels differ a hundredfold.
        contribution = np.abs(x).mean(0)[:, None]
        assert np.abs((ours - matrix) * contribution).max() < 2e-2
        if bias:
            ours = found.bias[i].double().numpy()
            np.testing.assert_allclose(ours - ours.mean(), offset - offset.mean(), atol=2e-2)
        else:
            assert found.bias is None


def test_a_dozen_preconditioned_iterations_are_enough():
    x, y, weights = sample()
    *_, value = reference(x, y, weights, 0.001, False)
    found = lbfgs(prepare(x, y, weights, False), [0.001], 12)
    assert found.objective[-1][0] == pytest.approx(value, rel=2e-3)


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_several_l2_jointly_equal_one_at_a_time(bias):
    l2 = [0.1, 0.01, 0.001]
    data = prepare(*sample(), bias)
    joint = lbfgs(data, l2, 40)
    for i, strength in enumerate(l2):
        alone = lbfgs(data, [strength], 40)
        assert joint.objective[-1][i] == pytest.approx(alone.objective[-1][0], rel=1e-5)
        scale = alone.matrix.abs().amax(2)[0, :, None]
        assert float(((joint.matrix[i] - alone.matrix[0]) / scale).abs().max()) < 0.05


@pytest.mark.parametrize("precondition", [False, True], ids=["plain", "preconditioned"])
def test_the_objective_never_rises(precondition):
    found = lbfgs(prepare(*sample(), True), [0.1, 0.0003], 40, precondition)
    objective = np.array(found.objective)
    assert objective.shape == (41, 2), "the start and every iteration"
    assert objective[0] == pytest.approx(np.log(CLASSES)), "all classes alike at the start"
    assert np.all(np.diff(objective, axis=0) <= 0)
    assert np.all(objective[-1] < objective[0] - 0.1)


def predictions(solution, x):
    z = torch.from_numpy(x).float() @ solution.matrix[0]
    return (z if solution.bias is None else z + solution.bias[0]).argmax(1)


def test_without_bias_a_class_is_a_cone():
    x, y, weights = sample()
    length = np.random.default_rng(1).uniform(0.2, 5, (len(x), 1))
    for bias in (False, True):
        found = lbfgs(prepare(x, y, weights, bias), [0.001], 30)
        same = torch.equal(predictions(found, x), predictions(found, x * length))
        assert same is not bias


def test_a_planted_matrix_is_found_again():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2000, CHANNELS)) * 10.0 ** np.linspace(-1, 1, CHANNELS) + 0.5
    planted = rng.standard_normal((CHANNELS, CLASSES)) / x.std(0)[:, None]
    y = (x @ planted).argmax(1)
    found = lbfgs(prepare(x, y, np.full(len(x), 1.0), False), [1e-5], 60)
    assert (predictions(found, x).numpy() == y).mean() > 0.99


def test_weights_count_as_repetitions():
    x, y, _ = sample(num=100)
    repeats = np.random.default_rng(3).integers(1, 4, len(x))
    weighted = lbfgs(prepare(x, y, repeats.astype(float), True), [0.01], 60)
    rows = np.repeat(np.arange(len(x)), repeats)
    repeated = lbfgs(prepare(x[rows], y[rows], np.ones(len(rows)), True), [0.01], 60)
    assert weighted.objective[-1] == pytest.approx(repeated.objective[-1], rel=1e-5)


def test_bfloat16_features_give_nearly_the_same_minimum():
    x, y, weights = sample()
    tensors = torch.from_numpy(y), torch.from_numpy(weights).float(), CLASSES, False
    exact = lbfgs(problem(torch.from_numpy(x).float(), *tensors), [0.01], 30)
    rough = lbfgs(problem(torch.from_numpy(x).bfloat16(), *tensors), [0.01], 30)
    assert rough.objective[-1] == pytest.approx(exact.objective[-1], rel=1e-2)
    assert rough.matrix.dtype == torch.float32


@pytest.mark.parametrize("fast", [False, True], ids=["converted", "bfloat16 units"])
def test_products_of_stored_columns_with_and_without_units(fast, monkeypatch):
    monkeypatch.setattr(problems, "fast_bfloat16", lambda device: fast)
    rows = problems.CACHED_ROWS + 5  # more than a block
    x = torch.randn(rows, 7).bfloat16()
    matrix, values = torch.randn(7, 3), torch.randn(rows, 3)
    close = {"rtol": 0.02, "atol": 0.2} if fast else {"rtol": 1e-5, "atol": 1e-4}
    torch.testing.assert_close(times(x, matrix), x.float() @ matrix, **close)
    torch.testing.assert_close(transposed_times(x, values), x.float().T @ values, **close)


def test_values_that_are_let_go_leave_the_others_as_they_were():
    data, l2 = prepare(*sample(), True), [0.1, 0.01, 0.001]
    # Later steps are of the size of float32's rounding, which depends on how many values go on.
    whole = lbfgs(data, l2, 12)
    left = lbfgs(data, l2, 12, on_iteration=lambda i, s: {5: [0, 2], 9: [1]}.get(i))
    assert [len(row) for row in left.objective] == [3] * 6 + [2] * 4 + [1] * 3
    torch.testing.assert_close(left.matrix[0], whole.matrix[2], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(left.bias[0], whole.bias[2], rtol=1e-3, atol=1e-4)


def test_every_iteration_is_reported():
    seen = []
    data = prepare(*sample(), False)
    last = lbfgs(data, [0.01], 7, on_iteration=lambda i, s: seen.append((i, s.matrix.clone())))
    assert [i for i, _ in seen] == list(range(1, 8))
    assert torch.equal(seen[-1][1], last.matrix)


def test_a_dead_channel_stays_at_zero():
    x, y, weights = sample()
    x[:, 2] = 0
    found = lbfgs(prepare(x, y, weights, False), [0.01], 20)
    assert found.matrix.isfinite().all()
    assert float(found.matrix[0, 2].abs().max()) == 0


def test_nothing_to_fit_on():
    with pytest.raises(InputError, match="no pixels"):
        problem(torch.zeros(0, 3), torch.zeros(0).long(), torch.zeros(0), 2, False)


@pytest.mark.parametrize("precondition", [False, True], ids=["plain", "preconditioned"])
def test_a_start_is_where_the_search_begins(precondition):
    x, y, weights = sample()
    data = prepare(x, y, weights, False)
    solved = lbfgs(data, [0.01], 40)
    again = lbfgs(data, [0.01], 3, precondition, start=solved.matrix[0])
    assert again.objective[0][0] == pytest.approx(solved.objective[-1][0], rel=1e-5)
    # Other labels of a tenth of the samples: from the old solution the first step comes nearer.
    y[::10] = (y[::10] + 1) % CLASSES
    changed = prepare(x, y, weights, False)
    least = lbfgs(changed, [0.01], 60).objective[-1][0]
    warm = lbfgs(changed, [0.01], 1, precondition, start=solved.matrix[0]).objective[-1][0]
    cold = lbfgs(changed, [0.01], 1, precondition).objective[-1][0]
    assert warm - least < (cold - least) / 2
