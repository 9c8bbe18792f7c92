"""The CUDA kernels of softmax, log-softmax and log-sum-exp, run by the simulator, against float64."""

from __future__ import annotations

import numpy as np
import pytest

import fastnlp

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
pytest.importorskip("greenlet", reason="greenlet is not installed")

from tests.simulated import SimulatedLibrary, host

DTYPES = {"float32": 2e-6, "float16": 2e-3, "bfloat16": 1.6e-2}  # beside values of about 1: rounded on the way out
FUNCTIONS = (fastnlp.softmax, fastnlp.log_softmax, fastnlp.logsumexp)


@pytest.fixture
def gpu():
    return SimulatedLibrary()


def truth(function, x, dy=None, **options):
    """Return the value in float64, and the gradient."""
    with np.errstate(all="ignore"):
        y, pullback = fastnlp.vjp(function)(np.asarray(x, np.float64), backend="reference", **options)
        return y, None if dy is None else pullback(np.asarray(dy, np.float64)).input


def close(actual, expected, dtype, scale=1.0):
    actual = np.asarray(actual).astype(np.float64)
    np.testing.assert_allclose(actual, expected, rtol=DTYPES[dtype], atol=DTYPES[dtype] * scale * 0.1)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (1, 8), (5, 24), (4, 517), (2, 1100)])
def test_values_and_gradients_are_those_of_float64(gpu, rng, function, dtype, shape):
    x = gpu.on_device(3 * rng.standard_normal(shape), dtype, readonly=True)
    y, pullback = fastnlp.vjp(function)(x)
    dy = gpu.on_device(rng.standard_normal(np.shape(y)), dtype, readonly=True)
    expected, gradient = truth(function, host(x), host(dy))
    assert y.dtype == x.dtype
    close(y, expected, dtype)
    dx = pullback(dy).input
    assert dx.dtype == x.dtype
    # the gradient starts from the rounded value
    close(dx, truth(function, host(x), host(dy))[1], dtype, scale=10 * np.abs(gradient).max())
    assert gpu.waits == []


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_that_are_misaligned_or_apart(gpu, rng, function, dtype):
    values = 3 * rng.standard_normal((4, 43))
    for offset, pitch in ((1, None), (0, 47), (3, 48), (0, 48), (8, 64)):
        x = gpu.on_device(values, dtype, offset=offset, pitch=pitch)
        close(function(x), truth(function, host(x))[0], dtype)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_any_axis_and_temperature(gpu, rng, function):
    x = gpu.on_device(rng.standard_normal((3, 4, 5)), "float32")
    for axis in (0, 1, -1):
        options = {"axis": axis} if function is fastnlp.logsumexp else {"axis": axis, "temperature": 0.3}
        y, pullback = fastnlp.vjp(function)(x, **options)
        dy = gpu.on_device(rng.standard_normal(y.shape), "float32")
        expected, gradient = truth(function, host(x), host(dy), **options)
        close(y, expected, "float32")
        close(pullback(dy).input, gradient, "float32", scale=3)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_rows_that_are_not_finite(gpu, function):
    inf, nan = np.inf, np.nan
    rows = np.array(
        [
            [1, -inf, 2],
            [-inf, -inf, -inf],
            [1, inf, 2],
            [inf, inf, nan],
            [1, nan, 2],
            [1e38, -1e38, 0],
            [1e4, 1e4, 1e4],
        ],
        np.float32,
    )
    x = gpu.on_device(np.tile(rows, 8), "float32")
    close(function(x), truth(function, host(x))[0], "float32")


def test_large_logits_keep_their_differences(gpu, rng):
    x = gpu.on_device(1e4 + rng.standard_normal((3, 100)), "float32")
    close(fastnlp.softmax(x), truth(fastnlp.softmax, host(x))[0], "float32")
    _, pullback = fastnlp.vjp(fastnlp.logsumexp)(x)
    ones = gpu.on_device(np.ones(3), "float32")
    close(pullback(ones).input, truth(fastnlp.logsumexp, host(x), np.ones(3))[1], "float32")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_out_and_in_place(gpu, rng, function):
    x = gpu.on_device(rng.standard_normal((3, 40)), "float32")
    expected = truth(function, host(x))[0]
    out = gpu.empty(expected.shape, "float32")
    assert function(x, out=out) is out.owner
    close(host(out), expected, "float32")
    if function is not fastnlp.logsumexp:
        function(x, out=x)
        close(host(x), expected, "float32")
    with pytest.raises(TypeError, match="out must be an array of float32 beside the input"):
        function(x, out=np.empty(expected.shape, np.float32))


def test_the_same_bits_for_any_grid_and_any_order(rng):
    values = rng.standard_normal((7, 300))
    results = []
    for processors, seed in ((1, 0), (3, 5), (8, 9)):
        gpu = SimulatedLibrary(processors=processors, seed=seed)
        results.append(np.asarray(fastnlp.softmax(gpu.on_device(values, "float32"))).tobytes())
    assert len(set(results)) == 1


def test_no_rows(gpu):
    for function in FUNCTIONS:
        x = gpu.on_device(np.empty((0, 5), np.float32))
        assert np.asarray(function(x)).shape == ((0,) if function is fastnlp.logsumexp else (0, 5))


def test_bad_input(gpu):
    for dtype in ("float64", "int32"):
        with pytest.raises(TypeError, match=f"float32, float16 or bfloat16 on a GPU, got {dtype}"):
            fastnlp.softmax(gpu.on_device(np.ones((2, 3)), dtype))
    x = gpu.on_device(np.ones((2, 3)), "float32")
    with pytest.raises(ValueError, match="axis"):
        fastnlp.softmax(x, axis=2)
    with pytest.raises(TypeError, match="does not run on arrays on the GPU"):
        fastnlp.softmax(x, backend="cpu")
    with pytest.raises(ValueError, match="mixed in one call"):
        fastnlp.cross_entropy(x, SimulatedLibrary().on_device(np.zeros(2, np.int64)))
    with pytest.raises(TypeError, match="mixed in one call"):
        fastnlp.cross_entropy(x, np.zeros(2, np.int64))
    with pytest.raises(TypeError, match="not moved to the CPU silently"):
        np.asarray(x)


@pytest.mark.parametrize("function", [*FUNCTIONS, fastnlp.cross_entropy])
def test_one_logit_far_above_the_others_wherever_it_stands(gpu, rng, function):
    places = np.array([0, 9, 500, 511, 512, 520, 1000, 1023, 1024, 1103])  # a block takes 512 at a time
    values = rng.standard_normal((len(places), 1104))
    values[np.arange(len(places)), places] = 1000
    x, more = gpu.on_device(values, "float32"), ()
    if function is fastnlp.cross_entropy:
        more = (gpu.on_device(np.roll(places, 1)),)
    expected = function(host(x).astype(np.float64), *map(host, more), backend="reference")
    close(function(x, *more), expected, "float32")
