"""`linear` and its gradients."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastnlp
from tests.numerics import assert_within_budget, frozen, numeric_gradient, strided

ACTIVATIONS = {
    None: lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "tanh": np.tanh,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
}


def operands(rng, n, d, v, dtype=np.float64):
    return (rng.standard_normal(shape).astype(dtype) for shape in ((n, d), (v, d), (v,)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 5, 3), (300, 16, 9001)])  # the last: several chunks of rows
def test_matches_truth(activation, dtype, shape, backend, rng):
    x, w, b = operands(rng, *shape, dtype)
    f = ACTIVATIONS[activation]
    truth = f(x.astype(np.float64) @ w.astype(np.float64).T + b)
    y = fastnlp.linear(x, w, b, activation=activation, backend=backend)
    if activation == "relu" and not truth.any():
        assert_array_equal(y, truth)
    else:
        assert_within_budget(y, truth, f(x @ w.T + b), ulps=16)


def test_leading_axes_and_no_bias(backend, rng):
    x, w, _ = operands(rng, 12, 5, 4)
    y = fastnlp.linear(x.reshape(3, 4, 5), w, backend=backend)
    assert_allclose(y, (x @ w.T).reshape(3, 4, 4), rtol=1e-13)
    assert_allclose(fastnlp.linear(x[0], w, backend=backend), w @ x[0], rtol=1e-13)


def test_layouts(backend, rng):
    x, w, b = operands(rng, 6, 5, 4)
    expected = fastnlp.linear(x, w, b, backend=backend)
    for xx, ww, bb in [
        (strided(x), strided(w), strided(b)),
        (frozen(x), frozen(w), frozen(b)),
        (x, np.asfortranarray(w), b),
    ]:
        assert_allclose(fastnlp.linear(xx, ww, bb, backend=backend), expected, rtol=1e-14)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients(activation, backend, rng):
    x, w, b = operands(rng, 6, 5, 4)

    def f(x=x, w=w, b=b):
        return fastnlp.linear(x, w, b, activation=activation, backend=backend)

    y, pullback = fastnlp.vjp(fastnlp.linear)(x, w, b, activation=activation, backend=backend)
    dy = rng.standard_normal(y.shape)
    grads = pullback(dy)
    assert_allclose(grads.input, numeric_gradient(lambda a: f(x=a), x, dy), rtol=1e-5, atol=1e-7)
    assert_allclose(grads.weight, numeric_gradient(lambda a: f(w=a), w, dy), rtol=1e-5, atol=1e-7)
    assert_allclose(grads.bias, numeric_gradient(lambda a: f(b=a), b, dy), rtol=1e-5, atol=1e-7)


def test_gradients_only_for_what_is_asked(backend, rng):
    x, w, _ = operands(rng, 6, 5, 4)
    y, pullback = fastnlp.vjp(fastnlp.linear, wrt="weight")(x, w, backend=backend)
    grads = pullback(np.ones_like(y))
    assert grads._fields == ("weight",)
    assert_allclose(grads.weight, np.ones((4, 6)) @ x)
    _, pullback = fastnlp.vjp(fastnlp.linear)(x, w, backend=backend)
    assert pullback(y).bias is None


def test_out_and_empty(backend, rng):
    x, w, b = operands(rng, 6, 5, 4)
    out = np.full((6, 4), np.nan)
    assert fastnlp.linear(x, w, b, out=out, backend=backend) is out
    assert_array_equal(out, fastnlp.linear(x, w, b, backend=backend))
    assert fastnlp.linear(x[:0], w, b, backend=backend).shape == (0, 4)
    assert_array_equal(fastnlp.linear(x[:, :0], w[:, :0], b, backend=backend), np.tile(b, (6, 1)))


@pytest.mark.parametrize("function", [fastnlp.linear, fastnlp.linear_softmax])
def test_out_may_overlap_the_other_arguments(function, backend, rng):
    n, d, v = 400, 16, 2000  # several chunks of rows
    x, w, b = operands(rng, n, d, v)
    expected = function(x, w, b, backend=backend)
    for shape, index in [((n, d), 0), ((v, d), 1), ((v,), 2)]:
        args, out = [x, w, b], np.zeros((n, v))
        args[index], inside = out.reshape(-1)[: np.prod(shape)].reshape(shape), args[index]
        args[index][...] = inside
        assert function(*args, out=out, backend=backend) is out
        assert_allclose(out, expected, rtol=1e-11, atol=1e-13)


def test_bad_input(backend, rng):
    x, w, b = operands(rng, 6, 5, 4)
    with pytest.raises(ValueError, match=r"weight must have shape \(classes, 5\).*weight.T would fit"):
        fastnlp.linear(x, w.T, backend=backend)
    with pytest.raises(ValueError, match="bias must have shape"):
        fastnlp.linear(x, w, b[:2], backend=backend)
    with pytest.raises(ValueError, match="weight must have 2 axes"):
        fastnlp.linear(x, w[0], backend=backend)
    with pytest.raises(TypeError, match="weight is float32, but float64 is wanted"):
        fastnlp.linear(x, w.astype(np.float32), backend=backend)
    with pytest.raises(ValueError, match="activation must be None or one of relu"):
        fastnlp.linear(x, w, activation="swish", backend=backend)
