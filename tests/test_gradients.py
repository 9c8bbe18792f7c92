"""`vjp` and `value_and_grad`."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastnlp


def test_fields_are_named_after_the_arguments(rng):
    x, w = rng.standard_normal((4, 3)), rng.standard_normal((5, 3))
    loss, grads = fastnlp.value_and_grad(fastnlp.linear_cross_entropy)(x, w, [0, 1, 2, 3])
    assert np.ndim(loss) == 0
    assert grads._fields == ("input", "linear_weight", "linear_bias")
    assert grads.linear_bias is None
    assert (grads.input.shape, grads.linear_weight.shape) == (x.shape, w.shape)


def test_pullback_scales_and_leaves_its_state_alone(rng):
    x = rng.standard_normal((4, 3))
    _, pullback = fastnlp.vjp(fastnlp.cross_entropy)(x, [0, 1, 2, 0])
    once = pullback(1.0).input.copy()
    np.testing.assert_allclose(pullback(-2.5).input, -2.5 * once)
    assert_array_equal(pullback(1.0).input, once)


@pytest.mark.parametrize("name", ["cross_entropy", "linear_cross_entropy", "logsumexp"])
def test_gradients_are_the_callers_own(name, rng):
    x, w = rng.standard_normal((4, 3)), rng.standard_normal((5, 3))
    args = {"cross_entropy": (x, [0, 1, 2, 0]), "linear_cross_entropy": (x, w, [0, 1, 2, 0]), "logsumexp": (x[0],)}
    _, pullback = fastnlp.vjp(getattr(fastnlp, name))(*args[name])
    first = pullback(1.0)
    kept = first.input.copy()
    first.input[...] = 0
    assert_array_equal(pullback(1.0).input, kept)


@pytest.mark.parametrize("name", ["cross_entropy", "linear_cross_entropy"])
def test_statistics_stand_beside_the_value(name, rng):
    x, w = rng.standard_normal((4, 3)), rng.standard_normal((5, 3))
    args = {"cross_entropy": (x, [0, 1, 2, 0]), "linear_cross_entropy": (x, w, [0, 1, 2, 0])}[name]
    function = getattr(fastnlp, name)
    loss, grads = fastnlp.value_and_grad(function)(*args)
    (same, stats), with_stats = fastnlp.value_and_grad(function)(*args, return_stats=True)
    assert type(stats) is fastnlp.LossStats
    assert same == pytest.approx(float(loss), rel=1e-14)
    np.testing.assert_allclose(with_stats.input, grads.input, rtol=1e-13, atol=1e-16)
    (losses, _), pullback = fastnlp.vjp(function)(*args, reduction="none", return_stats=True)
    np.testing.assert_allclose(pullback(np.full(4, 0.25)).input, grads.input, rtol=1e-13, atol=1e-16)
    with pytest.raises(ValueError, match=r"dy must have the shape of the value, \(4,\), got \(2, 4\)"):
        pullback(np.ones((2, 4)))
    with pytest.raises(ValueError, match=rf"value_and_grad needs a scalar, {name} gave shape \(4,\)"):
        fastnlp.value_and_grad(function)(*args, reduction="none", return_stats=True)
    assert losses.shape == (4,)


def test_upstream_gradients_of_any_kind(rng):
    x = rng.standard_normal((2, 3))
    _, pullback = fastnlp.vjp(fastnlp.softmax)(x)
    expected = pullback(np.ones((2, 3))).input
    assert_array_equal(pullback([[1, 1, 1], [1, 1, 1]]).input, expected)
    assert_array_equal(pullback(np.broadcast_to(1.0, (2, 3))).input, expected)
    for wrong in (None, "a", np.ones((2, 3), complex), np.ma.masked_array(x)):
        with pytest.raises(TypeError, match="dy "):
            pullback(wrong)
    _, pullback = fastnlp.vjp(fastnlp.cross_entropy)(x, [0, 1])
    assert_array_equal(pullback(2).input, pullback(np.float32(2)).input)
    with pytest.raises(ValueError, match="dy must have the shape of the value"):
        pullback([1.0])
    with pytest.raises(TypeError, match="dy must be float32"):
        pullback(1j)


def test_wrong_uses(rng):
    x = rng.standard_normal((4, 3))
    with pytest.raises(TypeError, match="sin has no gradient here"):
        fastnlp.vjp(np.sin)
    with pytest.raises(ValueError, match="no gradient for 'weights'; it has for input, weight, bias"):
        fastnlp.vjp(fastnlp.linear, wrt=["weights"])
    with pytest.raises(ValueError, match=r"dy must have the shape of the value, \(4, 3\), got \(3,\)"):
        fastnlp.vjp(fastnlp.softmax)(x)[1](np.ones(3))
    with pytest.raises(ValueError, match="out cannot be combined with gradients"):
        fastnlp.vjp(fastnlp.softmax)(x, out=np.empty_like(x))
    with pytest.raises(ValueError, match="value_and_grad needs a scalar, softmax gave shape"):
        fastnlp.value_and_grad(fastnlp.softmax)(x)
