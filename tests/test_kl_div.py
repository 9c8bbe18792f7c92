"""`kl_div` and its gradients."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from numpy.testing import assert_allclose, assert_array_equal

import fastnlp
from fastnlp._dispatch import implementation
from tests.numerics import assert_within_budget, frozen, numeric_gradient, strided


def operands(rng, shape, dtype=np.float64):
    """Log-probabilities, and a target of probabilities."""
    x, t = (scipy.special.log_softmax(rng.standard_normal(shape) * 3, axis=-1) for _ in range(2))
    return x.astype(dtype), np.exp(t).astype(dtype)


def naive(x, t, log_target):
    return np.exp(t) * (t - x) if log_target else scipy.special.xlogy(t, t) - t * x


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("log_target", [False, True])
@pytest.mark.parametrize("shape", [(1,), (3, 7), (2, 4097), (1, 250_000), (700, 131), (2, 3, 5)])
def test_matches_truth(dtype, log_target, shape, backend, rng):
    x, t = operands(rng, shape, dtype)
    if shape == (1,):
        x, t = x - dtype(0.5), t * dtype(0.75)  # a single element of a distribution is 0 log 1
    t = np.log(t) if log_target else t
    wide = (x.astype(np.float64), t.astype(np.float64))
    truth = naive(*wide, log_target)
    options = {"log_target": log_target, "backend": backend}
    losses, pullback = fastnlp.vjp(fastnlp.kl_div)(x, t, reduction="none", **options)
    assert_within_budget(losses, truth, naive(x, t, log_target))
    upstream = rng.standard_normal(shape).astype(dtype)
    mass = np.exp(wide[1]) if log_target else wide[1]
    eps = np.finfo(dtype).eps
    assert_allclose(pullback(upstream).input, -mass * upstream, rtol=4 * eps)
    slope = mass * (wide[1] - wide[0] + 1) if log_target else np.log(wide[1]) - wide[0] + 1
    size = mass if log_target else 1
    size = size * (np.abs(np.log(mass)) + np.abs(wide[0]) + 1) * np.abs(upstream)
    assert (np.abs(pullback(upstream).target - slope * upstream) <= 4 * eps * size).all()
    magnitude = np.abs(mass * wide[0]).sum() + np.abs(mass * np.log(mass)).sum()
    for reduction, divisor in {"sum": 1, "mean": truth.size, "batchmean": shape[0]}.items():
        loss = fastnlp.kl_div(x, t, reduction=reduction, **options)
        assert loss.dtype == dtype
        assert abs(loss * divisor - truth.sum()) <= (1e-6 if dtype == np.float32 else 1e-14) * magnitude


def test_hand_values(backend):
    x, t = np.log([0.25, 0.75]), np.array([0.5, 0.5])
    assert_allclose(
        fastnlp.kl_div(x, t, reduction="none", backend=backend), [0.5 * np.log(2), 0.5 * np.log(2 / 3)], rtol=1e-15
    )
    _, grads = fastnlp.value_and_grad(fastnlp.kl_div)(x, t, reduction="sum", backend=backend)
    assert_allclose(grads.input, [-0.5, -0.5])
    assert_allclose(grads.target, [1 + np.log(2), 1 + np.log(2 / 3)])


@pytest.mark.parametrize("log_target", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "batchmean", "none"])
def test_gradients(reduction, log_target, backend, rng):
    x, t = operands(rng, (3, 2, 4))
    t = np.log(t) if log_target else t
    options = {"reduction": reduction, "log_target": log_target, "backend": backend}
    loss, pullback = fastnlp.vjp(fastnlp.kl_div)(x, t, **options)
    dy = rng.standard_normal(np.shape(loss))
    for _ in range(2):  # a second backward gives the same
        grads = pullback(dy)
        dx = numeric_gradient(lambda a: fastnlp.kl_div(a, t, **options), x, dy)
        dt = numeric_gradient(lambda a: fastnlp.kl_div(x, a, **options), t, dy, step=1e-8)
        assert_allclose(grads.input, dx, rtol=1e-6, atol=1e-8)
        assert_allclose(grads.target, dt, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("wrt", ["input", "target"])
def test_one_gradient_alone(wrt, backend, rng):
    x, t = operands(rng, (6, 5))
    _, everything = fastnlp.value_and_grad(fastnlp.kl_div)(x, t, backend=backend)
    _, alone = fastnlp.value_and_grad(fastnlp.kl_div, wrt=wrt)(x, t, backend=backend)
    assert alone._fields == (wrt,)
    assert_array_equal(alone[0], getattr(everything, wrt))


@pytest.mark.parametrize("log_target", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "batchmean", "none"])
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
def test_peers(reduction, log_target, backend, rng):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x, t = operands(rng, (4, 3, 7))
    t = np.log(t) if log_target else t
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, t)]
    peer = torch.nn.functional.kl_div(*tensors, reduction=reduction, log_target=log_target)
    loss, pullback = fastnlp.vjp(fastnlp.kl_div)(x, t, reduction=reduction, log_target=log_target, backend=backend)
    assert_allclose(loss, peer.detach().numpy(), rtol=1e-13, atol=1e-16)
    upstream = rng.standard_normal(np.shape(loss))
    peer.backward(torch.tensor(upstream))
    for grad, tensor in zip(pullback(upstream), tensors, strict=True):
        assert_allclose(grad, tensor.grad.numpy(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("log_target", [False, True])
def test_without_mass(log_target, dtype, backend):
    inf = np.inf
    x, t = np.array([-1, -inf, -inf, 0, np.nan], dtype), np.array([0, 0, 0.5, 1, 0.5], dtype)
    with np.errstate(divide="ignore"):
        t = np.log(t) if log_target else t
    losses, pullback = fastnlp.vjp(fastnlp.kl_div)(x, t, reduction="none", log_target=log_target, backend=backend)
    assert_array_equal(losses, [0, 0, inf, 0, np.nan])
    grads = pullback(np.ones(5, dtype))
    assert_allclose(grads.input, [0, 0, -0.5, -1, -0.5], rtol=1e-6)
    assert_array_equal(grads.target[2:], [inf, 1, np.nan])
    assert grads.target[0] == (0 if log_target else -inf)


def test_negative_mass_and_nan(backend):
    assert np.isnan(fastnlp.kl_div(np.array([-1.0]), np.array([-0.1]), backend=backend))
    assert np.isnan(fastnlp.kl_div(np.array([-1.0]), np.array([np.nan]), backend=backend))
    assert fastnlp.kl_div(np.array([-1.0, -1.0]), np.array([2.0, 0.5]), backend=backend) > 0  # need not sum to one


def test_layouts_are_read_and_left_alone(backend, rng):
    x, t = operands(rng, (6, 5), np.float32)
    before = x.copy(), t.copy()
    expected = fastnlp.kl_div(x, t, backend=backend)
    for layout in (strided, frozen, np.asfortranarray):
        loss, grads = fastnlp.value_and_grad(fastnlp.kl_div)(layout(x), layout(t), backend=backend)
        assert loss == expected
        assert grads.input.shape == grads.target.shape == (6, 5)
    assert_array_equal(x, before[0])
    assert_array_equal(t, before[1])


def test_half_precision(backend, rng):
    x, t = operands(rng, (6, 50), np.float16)
    truth = naive(x.astype(np.float64), t.astype(np.float64), False)
    loss, pullback = fastnlp.vjp(fastnlp.kl_div)(x, t, reduction="sum", backend=backend)
    assert loss.dtype == np.float32
    assert_allclose(loss, truth.sum(), rtol=1e-5)
    loss, pullback = fastnlp.vjp(fastnlp.kl_div)(x, t * np.float16(2**-9), backend=backend)
    grads = pullback(2.0**17)  # inf in float16
    assert grads.input.dtype == grads.target.dtype == np.float16
    assert_allclose(grads.input, -(t * np.float16(2**-9)).astype(np.float64) * 2.0**17 / 300, rtol=2e-3, atol=1e-6)
    assert fastnlp.kl_div(x, t, reduction="none", backend=backend).dtype == np.float32


def test_kernels_write_every_element(backend, rng):
    kernels = implementation("kl_div", backend)
    x, t = (a.ravel() for a in operands(rng, (9, 70)))
    for log_target, target in ((False, t), (True, np.log(t))):
        out, sums, dx, dt = (np.full(n, np.nan) for n in (630, 7, 630, 630))
        kernels.elements(x, target, log_target, out)
        kernels.total(x, target, log_target, 100, sums)
        kernels.gradient(x, target, log_target, 2.0, dx, dt)
        assert_allclose(sums.sum(), out.sum(), rtol=1e-12)
        assert_allclose(sums[-1], out[600:].sum(), rtol=1e-12)
        assert np.isfinite(dx).all()
        assert np.isfinite(dt).all()


def test_the_same_bits_for_any_number_of_threads(rng):
    pytest.importorskip("numba", reason="numba is not installed")
    x, t = operands(rng, (37, 20_011), np.float32)
    before, results = fastnlp.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 8):
            fastnlp.set_num_threads(threads)
            loss, grads = fastnlp.value_and_grad(fastnlp.kl_div)(x, t, backend="cpu")
            results.append((loss, grads.input.tobytes(), grads.target.tobytes()))
    finally:
        fastnlp.set_num_threads(before)
    assert all(result == results[0] for result in results)


def test_empty(backend):
    run = fastnlp.kl_div
    assert np.isnan(run(np.empty((2, 0)), np.empty((2, 0)), backend=backend))
    assert np.isnan(run(np.empty((0, 2)), np.empty((0, 2)), reduction="batchmean", backend=backend))
    assert run(np.empty((2, 0)), np.empty((2, 0)), reduction="batchmean", backend=backend) == 0
    loss, grads = fastnlp.value_and_grad(run)(np.empty((0, 2)), np.empty((0, 2)), reduction="sum", backend=backend)
    assert loss == 0
    assert grads.input.shape == grads.target.shape == (0, 2)
    assert run(np.empty((0, 2)), np.empty((0, 2)), reduction="none", backend=backend).shape == (0, 2)


def test_bad_input(backend):
    x = np.log(np.full((2, 2), 0.5))
    with pytest.raises(ValueError, match=r"target must have the shape of input, \(2, 2\), got \(2,\)"):
        fastnlp.kl_div(x, x[0], backend=backend)
    with pytest.raises(TypeError, match="target is float32, but float64 is wanted"):
        fastnlp.kl_div(x, x.astype(np.float32), backend=backend)
    with pytest.raises(TypeError, match="input must be float32"):
        fastnlp.kl_div(np.ones((2, 2), int), x, backend=backend)
    with pytest.raises(ValueError, match="reduction must be one of mean, sum, batchmean, none, got 'average'"):
        fastnlp.kl_div(x, x, reduction="average", backend=backend)
    with pytest.raises(TypeError, match="log_target must be True or False"):
        fastnlp.kl_div(x, x, log_target=1, backend=backend)
    with pytest.raises(ValueError, match="value_and_grad needs a scalar"):
        fastnlp.value_and_grad(fastnlp.kl_div)(x, x, reduction="none", backend=backend)
