"""`linear_softmax` and its gradients."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from numpy.testing import assert_allclose, assert_array_equal

import fastnlp
from tests.numerics import assert_within_budget, numeric_gradient


def operands(rng, n, d, v, dtype=np.float64):
    return (rng.standard_normal(shape).astype(dtype) for shape in ((n, d), (v, d), (v,)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1, 2), (7, 5, 3), (300, 16, 9001)])
def test_matches_truth(dtype, shape, backend, rng):
    x, w, b = operands(rng, *shape, dtype)
    truth = scipy.special.softmax(x.astype(np.float64) @ w.astype(np.float64).T + b, axis=1)
    naive = scipy.special.softmax(x @ w.T + b, axis=1)
    y = fastnlp.linear_softmax(x, w, b, backend=backend)
    assert_within_budget(y, truth, naive, ulps=16)
    assert_allclose(y.sum(axis=1), 1, rtol=1e-5)


def test_temperature_and_leading_axes(backend, rng):
    x, w, b = operands(rng, 6, 5, 4)
    y = fastnlp.linear_softmax(x.reshape(2, 3, 5), w, b, temperature=2.5, backend=backend)
    assert_allclose(y, scipy.special.softmax((x @ w.T + b) / 2.5, axis=1).reshape(2, 3, 4), rtol=1e-12)


def test_gradients(backend, rng):
    x, w, b = operands(rng, 6, 5, 4)
    options = {"temperature": 1.7, "backend": backend}

    def f(x=x, w=w, b=b):
        return fastnlp.linear_softmax(x, w, b, **options)

    y, pullback = fastnlp.vjp(fastnlp.linear_softmax)(x, w, b, **options)
    dy = rng.standard_normal(y.shape)
    grads = pullback(dy)
    assert_allclose(grads.input, numeric_gradient(lambda a: f(x=a), x, dy), rtol=1e-5, atol=1e-8)
    assert_allclose(grads.weight, numeric_gradient(lambda a: f(w=a), w, dy), rtol=1e-5, atol=1e-8)
    assert_allclose(grads.bias, numeric_gradient(lambda a: f(b=a), b, dy), rtol=1e-5, atol=1e-8)


def test_out_and_empty(backend, rng):
    x, w, b = operands(rng, 6, 5, 4)
    out = np.full((6, 4), np.nan)
    assert fastnlp.linear_softmax(x, w, b, out=out, backend=backend) is out
    assert_array_equal(out, fastnlp.linear_softmax(x, w, b, backend=backend))
    assert fastnlp.linear_softmax(x[:0], w, b, backend=backend).shape == (0, 4)


def test_bad_input(backend, rng):
    x, w, _ = operands(rng, 6, 5, 4)
    with pytest.raises(ValueError, match="temperature"):
        fastnlp.linear_softmax(x, w, temperature=0.0, backend=backend)
    with pytest.raises(ValueError, match="weight must have shape"):
        fastnlp.linear_softmax(x, w[:, :3], backend=backend)
