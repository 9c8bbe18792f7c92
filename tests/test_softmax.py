"""`softmax`, `log_softmax`, `logsumexp` and their gradients."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from numpy.testing import assert_allclose, assert_array_equal

import fastnlp
from fastnlp._dispatch import implementation
from tests.numerics import assert_within_budget, frozen, numeric_gradient, strided

PEERS = {
    "softmax": scipy.special.softmax,
    "log_softmax": scipy.special.log_softmax,
    "logsumexp": lambda x, axis: scipy.special.logsumexp(x, axis=axis),
}
# One element, primes, one more than a vector, one more than a summation block, a vocabulary; several rows a task.
SHAPES = [(1, 1), (3, 7), (5, 33), (2, 4097), (1, 250_000), (700, 131)]


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_matches_truth(name, dtype, shape, backend, rng):
    x = (rng.standard_normal(shape) * 5).astype(dtype)
    truth = PEERS[name](x.astype(np.float64), axis=-1)
    y = getattr(fastnlp, name)(x, backend=backend)
    if np.abs(truth).max() == 0:  # the log-softmax of one class
        assert_array_equal(y, truth)
    else:
        assert_within_budget(y, truth, PEERS[name](x, axis=-1))


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("axis", [0, 1, 2, -2])
def test_axis(name, axis, backend, rng):
    x = rng.standard_normal((3, 4, 5))
    assert_allclose(getattr(fastnlp, name)(x, axis=axis, backend=backend), PEERS[name](x, axis=axis), rtol=1e-13)


def test_hand_values(backend):
    assert_allclose(fastnlp.softmax(np.log([1.0, 2.0, 5.0]), backend=backend), [0.125, 0.25, 0.625])
    assert_allclose(fastnlp.log_softmax(np.log([1.0, 3.0]), backend=backend), np.log([0.25, 0.75]))
    assert_allclose(fastnlp.logsumexp(np.log([1.0, 2.0, 5.0]), backend=backend), np.log(8))
    assert_allclose(fastnlp.softmax(np.log([1.0, 2.0]), temperature=0.5, backend=backend), [0.2, 0.8])


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("temperature", [0.3, 4.0])
def test_temperature_divides_the_logits(name, temperature, backend, rng):
    x = rng.standard_normal((4, 19))
    y = getattr(fastnlp, name)(x, temperature=temperature, backend=backend)
    assert_allclose(y, PEERS[name](x / temperature, axis=-1), rtol=1e-12)


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_values(name, dtype, backend):
    inf = np.inf
    rows = [
        [1e4, 1e4 - 1, -1e4],
        [-1e4, -1e4, -1e4],
        [-inf, 0, 1],
        [0, -inf, -inf],
        [-inf] * 3,
        [inf, 0, 1],
        [np.nan, 0, 1],
    ]
    x = np.array(rows, dtype)
    with np.errstate(all="ignore"):
        expected = PEERS[name](x.astype(np.float64), axis=-1)
        if name == "log_softmax":  # -inf - -inf: SciPy skips NaN maxima; PyTorch gives NaN, as softmax does
            expected[4] = np.nan
            expected[5] = np.nan
    y = getattr(fastnlp, name)(x, backend=backend)
    assert_allclose(y, expected, rtol=4 * np.finfo(dtype).eps, atol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", PEERS)
def test_layouts_are_read_and_left_alone(name, backend, rng):
    x = rng.standard_normal((6, 10)).astype(np.float32)
    function = getattr(fastnlp, name)
    expected = function(x, backend=backend)
    before = x.copy()
    for layout in (strided(x), frozen(x), np.asfortranarray(x), x[::-1][::-1], x.astype(">f4")):
        assert_array_equal(function(layout, backend=backend), expected)
    assert_array_equal(x, before)


@pytest.mark.parametrize("name", PEERS)
def test_half_precision_is_computed_in_float32(name, backend, rng):
    x = rng.standard_normal((3, 50)).astype(np.float16)
    y = getattr(fastnlp, name)(x, backend=backend)
    assert y.dtype == np.float16
    assert_array_equal(y, getattr(fastnlp, name)(x.astype(np.float32), backend=backend).astype(np.float16))


@pytest.mark.parametrize("name", PEERS)
def test_empty(name, backend):
    function = getattr(fastnlp, name)
    assert function(np.empty((0, 5)), backend=backend).shape == ((0,) if name == "logsumexp" else (0, 5))
    empty_rows = function(np.empty((2, 0)), backend=backend)
    assert_array_equal(empty_rows, np.full(2, -np.inf) if name == "logsumexp" else np.empty((2, 0)))


@pytest.mark.parametrize("name", PEERS)
def test_out(name, backend, rng):
    x = rng.standard_normal((4, 9))
    function = getattr(fastnlp, name)
    expected = function(x, backend=backend)
    out = np.full_like(expected, np.nan)
    assert function(x, out=out, backend=backend) is out
    assert_array_equal(out, expected)
    if name != "logsumexp":
        apart = strided(np.full((4, 9), np.nan))
        assert function(x, out=apart, backend=backend) is apart
        assert_array_equal(apart, expected)
        by_column = np.full((4, 9), np.nan)
        assert_array_equal(function(x, axis=0, out=by_column, backend=backend), function(x, axis=0, backend=backend))
        itself = x.copy()
        function(itself, out=itself, backend=backend)
        assert_array_equal(itself, expected)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("shift", [-1, 1])
def test_out_that_overlaps_the_input(name, shift, backend, rng):
    memory = rng.standard_normal((7, 9))
    x, out = memory[1:6], memory[1 + shift : 6 + shift]
    expected = getattr(fastnlp, name)(x.copy(), backend=backend)
    assert getattr(fastnlp, name)(x, out=out, backend=backend) is out
    assert_array_equal(out, expected)


@pytest.mark.parametrize("name", PEERS)
def test_gradient(name, backend, rng):
    x, function = rng.standard_normal((3, 4, 5)), getattr(fastnlp, name)
    for axis in (-1, 1):
        options = {"axis": axis, "backend": backend} | ({} if name == "logsumexp" else {"temperature": 0.7})
        y, pullback = fastnlp.vjp(function)(x, **options)
        dy = rng.standard_normal(y.shape)
        truth = numeric_gradient(lambda z, options=options: function(z, **options), x, dy)
        assert_allclose(pullback(dy).input, truth, rtol=1e-6, atol=1e-8)
        assert_array_equal(pullback(dy).input, pullback(dy).input)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_gradient_of_logsumexp_does_not_start_from_the_rounded_value(dtype, backend):
    x = np.array([[900, 900.5, 899.5, 0], [1e4, 1e4 - 16, 1e4, -1e4]], dtype)
    y, pullback = fastnlp.vjp(fastnlp.logsumexp)(x, backend=backend)
    truth = scipy.special.softmax(x.astype(np.float64), axis=-1)
    assert_allclose(pullback(np.ones_like(y)).input, truth, atol=np.finfo(dtype).eps)


@pytest.mark.parametrize("name", PEERS)
def test_gradient_at_infinities(name, backend):
    inf = np.inf
    x = np.array([[-inf, -inf, -inf], [inf, 0, 1], [np.nan, 0, 1], [-inf, 0, 1], [1e4, -1e4, 0]], np.float32)
    y, pullback = fastnlp.vjp(getattr(fastnlp, name))(x, backend=backend)
    dx = pullback(np.ones_like(y) / 2).input
    assert np.isnan(dx[:3]).all()
    p = scipy.special.softmax(x[3:].astype(np.float64), axis=-1)
    truth = {"softmax": 0 * p, "log_softmax": 0.5 - 1.5 * p, "logsumexp": 0.5 * p}[name]
    assert_allclose(dx[3:], truth, atol=1e-6)
    with np.errstate(over="ignore"):
        pullback(np.full_like(y, inf))  # without a warning


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("temperature", "expected"), [(5e-324, [0, 1, 0]), (1e308, [0.5, 0.5, 0])])
def test_temperatures_whose_inverse_is_beyond_the_dtype(temperature, expected, dtype, backend):
    x = np.array([0, 1, -np.inf], dtype)
    options = {"temperature": temperature, "backend": backend}
    assert_allclose(fastnlp.softmax(x, **options), expected, rtol=1e-6)
    assert_allclose(np.exp(fastnlp.log_softmax(x, **options)), expected, rtol=1e-6)


@pytest.mark.parametrize("kernel", ["softmax", "log_softmax", "logsumexp"])
def test_kernels_write_every_element(kernel, backend, rng):
    kernels = implementation("softmax", backend)
    x = rng.standard_normal((9, 70)).astype(np.float32)
    out = np.full(9 if kernel == "logsumexp" else x.shape, np.nan, np.float32)
    getattr(kernels, kernel)(x, out, *([] if kernel == "logsumexp" else [1.0]))
    assert np.isfinite(out).all()
    dx = np.full_like(x, np.nan)
    if kernel == "logsumexp":
        kernels.logsumexp_backward(x, np.ones_like(out), dx)
    else:
        getattr(kernels, f"{kernel}_backward")(out, x, dx, 1.0)
    assert np.isfinite(dx).all()


@pytest.mark.parametrize("name", PEERS)
def test_bad_input(name, backend):
    function = getattr(fastnlp, name)
    with pytest.raises(TypeError, match="input must be float32"):
        function(np.arange(3), backend=backend)
    with pytest.raises(TypeError, match="complex128"):
        function(np.ones(3, complex), backend=backend)
    with pytest.raises(ValueError, match="at least one axis"):
        function(np.float64(1.0), backend=backend)
    with pytest.raises(ValueError, match="axis"):
        function(np.ones((2, 3)), axis=2, backend=backend)
    for axis in (1.0, None, (0, 1), True):
        with pytest.raises(TypeError, match="axis must be an integer"):
            function(np.ones((2, 3)), axis=axis, backend=backend)
    with pytest.raises(ValueError, match="input cannot be read as an array"):
        function([[1.0, 2.0], [3.0]], backend=backend)
    with pytest.raises(TypeError, match="masked"):
        function(np.ma.masked_array([1.0], [True]), backend=backend)
    with pytest.raises(ValueError, match="out must have shape"):
        function(np.ones((2, 3)), out=np.empty((7, 7)), backend=backend)
    with pytest.raises(TypeError, match="out must be"):
        function(np.ones((2, 3)), out=np.empty((2, 3), np.float32), backend=backend)
    if name != "logsumexp":
        for temperature in (0, -1.0, np.inf, np.nan):
            with pytest.raises(ValueError, match="temperature"):
                function(np.ones((2, 3)), temperature=temperature, backend=backend)


@pytest.mark.parametrize("name", PEERS)
def test_sequences_are_read_as_float64(name, backend):
    rows = [np.float32([0.1, 0.7]), np.float32([0.2, 0.3])]
    y = getattr(fastnlp, name)(rows, backend=backend)
    assert y.dtype == np.float64
    assert_array_equal(y, getattr(fastnlp, name)(np.array(rows, np.float64), backend=backend))


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blocks_of_infinities(name, dtype, backend, rng):
    """Rows are summed in blocks of 1,024: each is all -inf once, the maximum rises and falls, at -1e4 and at 1e4."""
    x = rng.standard_normal((8, 4500)).astype(dtype)
    for row, (begin, end) in enumerate([(0, 1024), (0, 4096), (1024, 4500), (0, 1025), (3000, 4500)]):
        x[row, begin:end] = -np.inf
    x[5] += np.linspace(-2000, 2000, 4500).astype(dtype)
    x[6], x[7] = x[6] - dtype(1e4), x[7] + dtype(1e4)
    truth = PEERS[name](x.astype(np.float64), axis=-1)
    y = getattr(fastnlp, name)(x, backend=backend)
    assert_array_equal(np.isinf(y), np.isinf(truth))
    assert_within_budget(np.where(np.isinf(y), 0, y), np.where(np.isinf(truth), 0, truth), PEERS[name](x, axis=-1))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 1023, 1024, 4499])
def test_one_value_that_is_not_finite(value, place, backend, rng):
    x = rng.standard_normal((2, 4500)).astype(np.float32)
    x[1, :4400] = -np.inf
    x[:, place] = value
    assert np.isnan(fastnlp.softmax(x, backend=backend)).all()
    assert np.isnan(fastnlp.log_softmax(x, backend=backend)).all()
    assert_array_equal(fastnlp.logsumexp(x, backend=backend), [value, value])


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outputs_written_past_the_caches_are_the_same(name, dtype, monkeypatch, rng):
    memory = pytest.importorskip("fastnlp.kernels.cpu._memory", reason="numba is not installed")
    x = rng.standard_normal((9, 1031)).astype(dtype)  # every alignment, a block and a ragged rest
    expected = getattr(fastnlp, name)(x, backend="cpu")
    monkeypatch.setattr(memory, "_STREAMED", 0)
    out = np.full(x.size + 1, np.nan, dtype)[1:].reshape(x.shape)
    getattr(fastnlp, name)(x, out=out, backend="cpu")
    assert_array_equal(out, expected)
    assert_array_equal(
        getattr(fastnlp, name)(x[:, :3], backend="cpu"), getattr(fastnlp, name)(x[:, :3].copy(), backend="cpu")
    )
