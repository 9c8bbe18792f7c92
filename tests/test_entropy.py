"""`entropy` and its gradient, and `perplexity`."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats
from numpy.testing import assert_allclose, assert_array_equal

import fastnlp
from fastnlp._dispatch import implementation
from tests.numerics import assert_within_budget, frozen, numeric_gradient, strided


def naive(x, scale=1.0):
    """Entropies of the rows, and their gradients."""
    log_p = scipy.special.log_softmax(x * x.dtype.type(scale), axis=-1)
    p = np.exp(log_p)
    h = -(p * log_p).sum(axis=-1)
    return h, -p * (log_p + h[..., None]) * x.dtype.type(scale)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
@pytest.mark.parametrize("shape", [(5, 2), (3, 7), (2, 4097), (1, 250_000), (700, 131)])
def test_matches_truth(dtype, temperature, shape, backend, rng):
    x = (rng.standard_normal(shape) * 4).astype(dtype)
    truth, slope = naive(x.astype(np.float64), 1 / temperature)
    near, near_slope = naive(x, 1 / temperature)
    h, pullback = fastnlp.vjp(fastnlp.entropy)(x, temperature=temperature, backend=backend)
    assert h.dtype == dtype
    assert_within_budget(h, truth, near, ulps=8)
    assert_allclose(h, truth, rtol=1e-6 if dtype == np.float32 else 1e-13, atol=1e-14)  # of the naive truth
    upstream = rng.standard_normal(shape[0]).astype(dtype)
    wanted = (slope * upstream[:, None], near_slope * upstream[:, None])
    for _ in range(2):
        assert_within_budget(pullback(upstream).input, *wanted, ulps=16)  # -log p and H cancel


def test_hand_values(backend):
    x = np.log([[1.0, 1.0, 2.0], [1.0, 1.0, 1.0]])
    assert_allclose(fastnlp.entropy(x, backend=backend), [1.5 * np.log(2), np.log(3)], rtol=1e-15)
    assert_allclose(fastnlp.entropy(np.zeros((2, 3, 8)), backend=backend), np.full((2, 3), np.log(8)))
    assert fastnlp.entropy(np.zeros(4), backend=backend) == np.log(4)


def test_scipy(backend, rng):
    x = rng.standard_normal((6, 9)) * 3
    assert_allclose(
        fastnlp.entropy(x, backend=backend), scipy.stats.entropy(scipy.special.softmax(x, axis=1), axis=1), rtol=1e-13
    )


def test_gradient(backend, rng):
    x = rng.standard_normal((3, 2, 5))
    h, pullback = fastnlp.vjp(fastnlp.entropy)(x, temperature=0.7, backend=backend)
    dy = rng.standard_normal(h.shape)
    truth = numeric_gradient(lambda z: fastnlp.entropy(z, temperature=0.7, backend=backend), x, dy)
    assert_allclose(pullback(dy).input, truth, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_confident_predictions_keep_their_digits(dtype, backend):
    gap = np.array([5.0, 15.0, 25.0, 40.0], dtype)
    x = np.stack([gap, np.zeros_like(gap)], axis=1)
    q = scipy.special.expit(-gap.astype(np.float64))  # of the other class
    truth = -q * np.log(q) - (1 - q) * np.log1p(-q)
    assert_allclose(fastnlp.entropy(x, backend=backend), truth, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits(dtype, backend):
    inf = np.inf
    x = np.array([[1e4, 1e4, -1e4], [-inf, 0, 0], [0, -inf, -inf], [5e3, 4999, -inf]], dtype)
    h, pullback = fastnlp.vjp(fastnlp.entropy)(x, backend=backend)
    q = scipy.special.expit(-1.0)
    assert_allclose(h, [np.log(2), np.log(2), 0, -q * np.log(q) - (1 - q) * np.log1p(-q)], rtol=1e-6)
    dx = pullback(np.ones(4, dtype)).input
    assert np.isfinite(dx).all()
    assert_allclose(dx.sum(axis=1), 0, atol=1e-6)
    assert not dx[:3].any()
    bad = np.array([[-inf, -inf], [inf, 0], [np.nan, 0], [1, 2]], dtype)
    assert_array_equal(np.isnan(fastnlp.entropy(bad, backend=backend)), [True, True, True, False])


def test_layouts_are_read_and_left_alone(backend, rng):
    x = rng.standard_normal((6, 5)).astype(np.float32)
    before, expected = x.copy(), fastnlp.entropy(x, backend=backend)
    for layout in (strided, frozen, np.asfortranarray):
        assert_array_equal(fastnlp.entropy(layout(x), backend=backend), expected)
    assert_array_equal(x, before)
    h, pullback = fastnlp.vjp(fastnlp.entropy)(x.astype(np.float16), backend=backend)
    assert h.dtype == np.float32
    assert pullback(np.ones(6)).input.dtype == np.float16


def test_kernels_write_every_element(backend, rng):
    kernels = implementation("entropy", backend)
    x = rng.standard_normal((9, 70))
    out, dx = np.full(9, np.nan), np.full_like(x, np.nan)
    kernels.forward(x, 1.0, out)
    kernels.gradient(x, 1.0, np.ones(9), dx)
    assert np.isfinite(out).all()
    assert np.isfinite(dx).all()


def test_the_same_bits_for_any_number_of_threads(rng):
    pytest.importorskip("numba", reason="numba is not installed")
    x = rng.standard_normal((300, 2011)).astype(np.float32)
    before, results = fastnlp.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 8):
            fastnlp.set_num_threads(threads)
            h, pullback = fastnlp.vjp(fastnlp.entropy)(x, backend="cpu")
            results.append((h.tobytes(), pullback(np.ones(300)).input.tobytes()))
    finally:
        fastnlp.set_num_threads(before)
    assert all(result == results[0] for result in results)


def test_empty_and_one_class(backend):
    assert fastnlp.entropy(np.empty((0, 3)), backend=backend).shape == (0,)
    h, pullback = fastnlp.vjp(fastnlp.entropy)(np.ones((2, 1)), backend=backend)
    assert_array_equal(h, [0, 0])
    assert not pullback(np.ones(2)).input.any()


def test_bad_input(backend):
    with pytest.raises(TypeError, match="input must be float32"):
        fastnlp.entropy(np.ones((2, 2), int), backend=backend)
    with pytest.raises(ValueError, match="temperature must be a positive finite number"):
        fastnlp.entropy(np.ones((2, 2)), temperature=0, backend=backend)


def test_perplexity(backend, rng):
    x, target = rng.standard_normal((2, 6, 5)), rng.integers(0, 5, (2, 6))
    target[0, 1] = -100
    mean = fastnlp.cross_entropy(x, target, backend=backend)
    assert_allclose(fastnlp.perplexity(x, target, backend=backend), np.exp(mean), rtol=1e-14)
    assert_allclose(fastnlp.perplexity(np.zeros((4, 7)), np.arange(4), backend=backend), 7, rtol=1e-14)
    assert np.isnan(fastnlp.perplexity(x, np.full((2, 6), -100), backend=backend))
    assert fastnlp.perplexity(np.array([[1e4, 0.0]]), [1], backend=backend) == np.inf
    options = {
        "weight": np.arange(1.0, 6.0),
        "label_smoothing": 0.1,
        "temperature": 2.0,
        "softcap": 3.0,
        "token_weight": rng.random((2, 6)),
        "backend": backend,
    }
    mean = fastnlp.cross_entropy(x, target, **options)
    assert_allclose(fastnlp.perplexity(x, target, **options), np.exp(mean), rtol=1e-14)
    with pytest.raises(ValueError, match="outside"):
        fastnlp.perplexity(x, target + 1, backend=backend)
