"""`softmax_kl_div` and its gradients."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from numpy.testing import assert_allclose, assert_array_equal

import fastnlp
from fastnlp._dispatch import implementation
from tests.numerics import frozen, numeric_gradient, strided

BETAS = [0.0, 0.1, 0.5, 0.99, 1.0]


def divergence(x, y, beta, temperature=1.0):
    """The definition, in extended precision where there is one."""
    log_p, log_q = (a.astype(np.longdouble) / temperature for a in (y, x))
    for a in (log_p, log_q):
        a -= a.max(axis=-1, keepdims=True)
        a -= np.log(np.exp(a).sum(axis=-1, keepdims=True))
    p, q = np.exp(log_p), np.exp(log_q)
    if beta == 0:
        return (p * (log_p - log_q)).sum(axis=-1)
    if beta == 1:
        return (q * (log_q - log_p)).sum(axis=-1)
    beta = np.longdouble(beta)
    log_m = np.log(beta * p + (1 - beta) * q)
    return beta * (p * (log_p - log_m)).sum(axis=-1) + (1 - beta) * (q * (log_q - log_m)).sum(axis=-1)


def slopes(x, y, beta, temperature=1.0):
    """Gradients of the rows' divergences in x and y, and the magnitude of what cancels in them."""
    p, q = (scipy.special.softmax(a.astype(np.float64) / temperature, axis=-1) for a in (y, x))

    def of_second(p, q, beta):
        if beta == 0:
            return q - p
        log_q_m = np.log(q) - np.log(p if beta == 1 else beta * p + (1 - beta) * q)
        return (1 if beta == 1 else 1 - beta) * q * (log_q_m - (q * log_q_m).sum(axis=-1, keepdims=True))

    size = (p + q) * (1 + np.abs(np.log(p) - np.log(q))) / temperature
    return of_second(p, q, beta) / temperature, of_second(q, p, 1 - beta) / temperature, size


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize(
    ("shape", "temperature"), [((3, 7), 0.5), ((2, 4097), 2.0), ((1, 60_001), 1.0), ((70, 13), 1.0)]
)
def test_matches_truth(dtype, beta, shape, temperature, backend, rng):
    y, noise = (rng.standard_normal(shape) * 2 for _ in range(2))
    upstream = rng.standard_normal(shape[0]).astype(dtype)
    tolerance = 1e-6 if dtype == np.float32 else 1e-14
    options = {"beta": beta, "temperature": temperature, "reduction": "none", "backend": backend}
    for distance in (1.0, 0.1):
        x, z = (y + distance * noise).astype(dtype), y.astype(dtype)
        loss, pullback = fastnlp.vjp(fastnlp.softmax_kl_div)(x, z, **options)
        assert loss.dtype == dtype
        assert_allclose(loss, divergence(x, z, beta, temperature).astype(float), rtol=max(tolerance, 2e-13))
        dx, dy, size = slopes(x, z, beta, temperature)
        for _ in range(2):
            for grad, truth in zip(pullback(upstream), (dx, dy), strict=True):
                assert (np.abs(grad - truth * upstream[:, None]) <= tolerance * size * np.abs(upstream[:, None])).all()


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nearly_equal_distributions_keep_their_digits(dtype, beta, backend, rng):
    y = (rng.standard_normal((4, 1000)) * 2).astype(dtype)
    x = y + dtype(1e-3) * rng.standard_normal(y.shape).astype(dtype)
    truth = divergence(x, y, beta).astype(float)
    assert (truth < 1e-6).all()
    loss = fastnlp.softmax_kl_div(x, y, beta=beta, reduction="none", backend=backend)
    assert_allclose(loss, truth, rtol=1e-6 if dtype == np.float32 else 1e-9)
    assert (loss >= 0).all()
    assert (fastnlp.softmax_kl_div(y, y, beta=beta, reduction="none", backend=backend) < 1e-30).all()


def test_hand_values(backend):
    x, y = np.log([[1.0, 3.0]]), np.log([[1.0, 1.0]])
    kl, reverse = 0.5 * np.log(4 / 3), np.log(1.5) - 0.25 * np.log(3)
    assert_allclose(fastnlp.softmax_kl_div(x, y, backend=backend), kl, rtol=1e-14)
    assert_allclose(fastnlp.softmax_kl_div(x, y, beta=1, backend=backend), reverse, rtol=1e-14)
    assert_allclose(fastnlp.softmax_kl_div(y, x, backend=backend), reverse, rtol=1e-14)
    _, grads = fastnlp.value_and_grad(fastnlp.softmax_kl_div)(x, y, backend=backend)
    assert_allclose(grads.input, [[-0.25, 0.25]], rtol=1e-14)


@pytest.mark.parametrize("beta", BETAS)
def test_roles_change_with_beta(beta, backend, rng):
    x, y = rng.standard_normal((2, 6, 9))
    one, grads = fastnlp.value_and_grad(fastnlp.softmax_kl_div)(x, y, beta=beta, backend=backend)
    other, swapped = fastnlp.value_and_grad(fastnlp.softmax_kl_div)(y, x, beta=1 - beta, backend=backend)
    assert_allclose(one, other, rtol=1e-13)
    assert_allclose(grads.input, swapped.target, rtol=1e-10, atol=1e-15)
    if beta == 0:
        assert not np.isclose(one, fastnlp.softmax_kl_div(y, x, backend=backend))


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("reduction", ["batchmean", "sum", "none"])
def test_gradients(reduction, beta, backend, rng):
    x, y = rng.standard_normal((2, 3, 2, 4))
    options = {"beta": beta, "reduction": reduction, "temperature": 1.7, "scale_by_t2": True, "backend": backend}
    loss, pullback = fastnlp.vjp(fastnlp.softmax_kl_div)(x, y, **options)
    dy = rng.standard_normal(np.shape(loss))
    dx = numeric_gradient(lambda a: fastnlp.softmax_kl_div(a, y, **options), x, dy)
    dt = numeric_gradient(lambda a: fastnlp.softmax_kl_div(x, a, **options), y, dy)
    for _ in range(2):
        assert_allclose(pullback(dy).input, dx, rtol=1e-6, atol=1e-9)
        assert_allclose(pullback(dy).target, dt, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("wrt", ["input", "target"])
@pytest.mark.parametrize("beta", BETAS)
def test_one_gradient_alone(beta, wrt, backend, rng):
    x, y = rng.standard_normal((2, 6, 5))
    run = fastnlp.softmax_kl_div
    _, everything = fastnlp.value_and_grad(run)(x, y, beta=beta, backend=backend)
    _, alone = fastnlp.value_and_grad(run, wrt=wrt)(x, y, beta=beta, backend=backend)
    assert alone._fields == (wrt,)
    assert_array_equal(alone[0], getattr(everything, wrt))


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("reduction", ["batchmean", "sum"])
def test_peers(reduction, beta, backend, rng):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    functional = torch.nn.functional
    x, y = rng.standard_normal((2, 5, 7)) * 3
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, y)]
    t = 2.5
    log_q, log_p = (functional.log_softmax(a / t, dim=-1) for a in tensors)

    def kl(p, m):
        return functional.kl_div(m, p, reduction=reduction, log_target=True)

    if 0 < beta < 1:
        m = torch.logaddexp(log_p + np.log(beta), log_q + np.log1p(-beta))
        peer = beta * kl(log_p, m) + (1 - beta) * kl(log_q, m)
    else:
        peer = kl(log_p, log_q) if beta == 0 else kl(log_q, log_p)
    (peer * t**2).backward()
    loss, grads = fastnlp.value_and_grad(fastnlp.softmax_kl_div)(
        x, y, beta=beta, temperature=t, scale_by_t2=True, reduction=reduction, backend=backend
    )
    assert_allclose(loss, peer.item() * t**2, rtol=1e-12)
    for grad, tensor in zip(grads, tensors, strict=True):
        assert_allclose(grad, tensor.grad.numpy(), rtol=1e-10, atol=1e-14)


def test_reductions(backend, rng):
    x, y = rng.standard_normal((2, 3, 4, 5))
    rows = fastnlp.softmax_kl_div(x, y, reduction="none", temperature=2, backend=backend)
    assert rows.shape == (3, 4)
    assert_allclose(fastnlp.softmax_kl_div(x, y, temperature=2, backend=backend), rows.mean(), rtol=1e-14)
    squared = {"temperature": 2, "scale_by_t2": True, "backend": backend}
    assert_allclose(fastnlp.softmax_kl_div(x, y, reduction="sum", **squared), 4 * rows.sum(), rtol=1e-14)
    assert_allclose(fastnlp.softmax_kl_div(x, y, reduction="none", **squared), 4 * rows, rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_classes_without_mass(dtype, backend):
    inf = np.inf
    x = np.array([[0, -inf, 1], [0, 0, 1], [0, -inf, 1]], dtype)
    y = np.array([[0, -inf, 2], [0, -inf, 2], [0, 0, 2]], dtype)
    kept = divergence(x[:1, ::2], y[:1, ::2], 0.5)
    for beta, lost in ((0.0, [False, False, True]), (1.0, [False, True, False]), (0.5, [False] * 3)):
        loss, pullback = fastnlp.vjp(fastnlp.softmax_kl_div)(x, y, beta=beta, reduction="none", backend=backend)
        assert_array_equal(np.isinf(loss), lost)
        assert not np.isnan(loss).any()
        dx, dy = pullback(np.ones(3, dtype))
        finite = ~np.array(lost)
        assert np.isfinite(dx[finite]).all()
        assert np.isfinite(dy[finite]).all()
    assert_allclose(loss[0], kept[0], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("beta", BETAS)
def test_extreme_logits(beta, dtype, backend, rng):
    base = rng.standard_normal((1, 50)) * 3
    x, y = base.astype(dtype), (base + rng.standard_normal((1, 50))).astype(dtype)
    far = np.concatenate([x + 10000, y]), np.concatenate([y, y + 10000])  # of other heights
    loss, pullback = fastnlp.vjp(fastnlp.softmax_kl_div)(*far, beta=beta, reduction="none", backend=backend)
    assert_allclose(loss, divergence(*far, beta).astype(float), rtol=1e-6, atol=1e-12)
    assert np.isfinite(pullback(np.ones(2, dtype)).input).all()
    sure = np.array([[1e4, 0, -1e4]], dtype), np.array([[0, 1e4, 0]], dtype)
    assert_allclose(
        fastnlp.softmax_kl_div(*sure, beta=beta, backend=backend), divergence(*sure, beta).astype(float), rtol=1e-6
    )
    bad = np.array([[-np.inf, -np.inf], [np.inf, 0], [np.nan, 0]], dtype)
    for one, other in ((bad, np.zeros_like(bad)), (np.zeros_like(bad), bad)):
        assert np.isnan(fastnlp.softmax_kl_div(one, other, beta=beta, reduction="none", backend=backend)).all()


def test_layouts_are_read_and_left_alone(backend, rng):
    x, y = rng.standard_normal((2, 6, 5)).astype(np.float32)
    before = x.copy(), y.copy()
    expected = fastnlp.softmax_kl_div(x, y, beta=0.5, backend=backend)
    for layout in (strided, frozen, np.asfortranarray):
        assert fastnlp.softmax_kl_div(layout(x), layout(y), beta=0.5, backend=backend) == expected
    assert_array_equal(x, before[0])
    assert_array_equal(y, before[1])


def test_half_precision(backend, rng):
    x, y = rng.standard_normal((2, 6, 5)).astype(np.float16)
    loss, pullback = fastnlp.vjp(fastnlp.softmax_kl_div)(x, y, backend=backend)
    assert loss.dtype == np.float32
    factor = 2.0**17  # inf in float16
    dx, dy, _ = slopes(x, y, 0)
    for grad, truth in zip(pullback(factor), (dx, dy), strict=True):
        assert grad.dtype == np.float16
        assert_allclose(grad, truth * factor / 6, rtol=2e-3, atol=2)


def test_kernels_write_every_element(backend, rng):
    kernels = implementation("softmax_kl_div", backend)
    x, y = rng.standard_normal((2, 9, 70))
    for beta in (0.0, 0.5, 1.0):
        loss, dx, dy = np.full(9, np.nan), np.full_like(x, np.nan), np.full_like(x, np.nan)
        kernels.forward(x, y, beta, 1.0, loss)
        assert np.isfinite(loss).all()
        loss[:] = np.nan
        kernels.gradient(x, y, beta, 1.0, np.ones(9), loss, dx, dy)
        assert all(np.isfinite(a).all() for a in (loss, dx, dy))


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_the_same_bits_for_any_number_of_threads(beta, rng):
    pytest.importorskip("numba", reason="numba is not installed")
    x, y = rng.standard_normal((2, 300, 2011)).astype(np.float32)
    before, results = fastnlp.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 8):
            fastnlp.set_num_threads(threads)
            loss, grads = fastnlp.value_and_grad(fastnlp.softmax_kl_div)(x, y, beta=beta, backend="cpu")
            results.append((loss, grads.input.tobytes(), grads.target.tobytes()))
    finally:
        fastnlp.set_num_threads(before)
    assert all(result == results[0] for result in results)


def test_empty_and_one_class(backend):
    run = fastnlp.value_and_grad(fastnlp.softmax_kl_div)
    loss, grads = run(np.empty((0, 3)), np.empty((0, 3)), backend=backend)
    assert np.isnan(loss)
    assert grads.input.shape == (0, 3)
    assert fastnlp.softmax_kl_div(np.empty((0, 3)), np.empty((0, 3)), reduction="sum", backend=backend) == 0
    for beta in BETAS:
        loss, grads = run(np.ones((2, 1)), np.zeros((2, 1)), beta=beta, backend=backend)
        assert loss == 0
        assert not grads.input.any()


def test_bad_input(backend):
    x, run = np.ones((2, 3)), fastnlp.softmax_kl_div
    with pytest.raises(ValueError, match=r"target must have the shape of input, \(2, 3\), got \(3,\)"):
        run(x, x[0], backend=backend)
    with pytest.raises(TypeError, match="target is float32, but float64 is wanted"):
        run(x, x.astype(np.float32), backend=backend)
    for wrong in (-0.1, 1.5, np.nan):
        with pytest.raises(ValueError, match="beta must be"):
            run(x, x, beta=wrong, backend=backend)
    with pytest.raises(TypeError, match="beta must be a number"):
        run(x, x, beta="jsd", backend=backend)
    with pytest.raises(ValueError, match="temperature must be a positive finite number"):
        run(x, x, temperature=0, backend=backend)
    with pytest.raises(ValueError, match=r"reduction must be one of batchmean, sum, none, got 'mean' \(batchmean is"):
        run(x, x, reduction="mean", backend=backend)
    with pytest.raises(TypeError, match="scale_by_t2 must be True or False"):
        run(x, x, scale_by_t2=2.0, backend=backend)
