"""Linear maps and their softmax on a GPU, run by the simulator with NumPy's products, against float64."""

from __future__ import annotations

import numpy as np
import pytest

import fastnlp

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
pytest.importorskip("greenlet", reason="greenlet is not installed")

from fastnlp.kernels.cuda._schedule import whole
from tests.simulated import SimulatedLibrary, host

DTYPES = {"float32": 3e-6, "float16": 3e-3, "bfloat16": 2.5e-2}
NAMES = ("input", "weight", "bias")


@pytest.fixture
def gpu():
    return SimulatedLibrary()


def arguments(gpu, rng, dtype, n=5, d=8, v=19, bias=True):
    shapes = (n, d), (v, d), (v,)
    arrays = [gpu.on_device(rng.standard_normal(shape), dtype, readonly=True) for shape in shapes]
    return arrays if bias else arrays[:2]


def check(function, arguments, dy, dtype, **options):
    """Hold values and gradients on the device against the reference's in float64, from the same rounded numbers."""
    y, pullback = fastnlp.vjp(function)(*arguments, **options)
    wide = [host(x).astype(np.float64) for x in arguments]
    expected, of_reference = fastnlp.vjp(function)(*wide, backend="reference", **options)
    assert y.dtype == arguments[0].dtype
    tolerance = DTYPES[dtype]
    np.testing.assert_allclose(np.asarray(y).astype(np.float64), expected, rtol=tolerance, atol=tolerance)
    gradients, wanted = pullback(dy), of_reference(host(dy).astype(np.float64))
    for name in NAMES[: len(arguments)]:
        actual, truth = getattr(gradients, name), getattr(wanted, name)
        assert actual.dtype == arguments[0].dtype
        size = np.abs(truth).max(initial=0)
        np.testing.assert_allclose(actual.astype(np.float64), truth, rtol=tolerance, atol=4 * tolerance * size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", [None, "relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(gpu, rng, dtype, activation, bias):
    given = arguments(gpu, rng, dtype, bias=bias)
    dy = gpu.on_device(rng.standard_normal((5, 19)), dtype)
    check(fastnlp.linear, given, dy, dtype, activation=activation)
    assert gpu.waits == []


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("v", [1, 8, 37, 260])
def test_linear_softmax(gpu, rng, dtype, bias, v):
    given = arguments(gpu, rng, dtype, v=v, bias=bias)
    check(fastnlp.linear_softmax, given, gpu.on_device(rng.standard_normal((5, v)), dtype), dtype, temperature=1.5)
    assert gpu.waits == []


def test_sums_over_rows_go_slice_by_slice(gpu, rng):
    given = arguments(gpu, rng, "float32", n=600, v=3)
    check(fastnlp.linear, given, gpu.on_device(rng.standard_normal((600, 3)), "float32"), "float32")


def test_leading_axes_and_transposed_weights(gpu, rng):
    x = gpu.on_device(rng.standard_normal((2, 3, 4)), "float32")
    weight = gpu.on_device(rng.standard_normal((4, 9)), "float32").T
    y = fastnlp.linear_softmax(x, weight)
    assert y.shape == (2, 3, 9)
    np.testing.assert_allclose(y, fastnlp.linear_softmax(host(x), host(weight)), rtol=1e-5, atol=1e-6)


def test_only_what_is_wanted_is_multiplied(gpu, rng, monkeypatch):
    x, weight, bias = arguments(gpu, rng, "float32")
    products = []
    multiply = SimulatedLibrary.matmul

    def counted(self, *args, **kwargs):
        products.append(args[0].shape)
        multiply(self, *args, **kwargs)

    monkeypatch.setattr(SimulatedLibrary, "matmul", counted)
    y, pullback = fastnlp.vjp(fastnlp.linear, wrt=["weight"])(x, weight, bias)
    pullback(gpu.on_device(y, "float32"))
    assert products == [(5, 8), (19, 5)]


WEIGHTS = {
    "of the other order": lambda w: np.asfortranarray(w),
    "every second feature": lambda w: np.repeat(w, 2, axis=1)[:, ::2],
    "backwards": lambda w: w[::-1],
    "one class": lambda w: np.broadcast_to(w[:1], w.shape),
    "one feature": lambda w: np.broadcast_to(w[:, :1], w.shape),
    "overlapping": lambda w: np.lib.stride_tricks.sliding_window_view(w.reshape(-1)[: sum(w.shape) - 1], w.shape[1]),
}


@pytest.mark.parametrize("v", [1, 12])
@pytest.mark.parametrize("d", [1, 8])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_weights_of_any_strides(gpu, rng, weight, v, d):
    x, _, bias = arguments(gpu, rng, "float32", d=d, v=v)
    w = gpu.wrap(WEIGHTS[weight](rng.standard_normal((v, d)).astype(np.float32)))
    check(fastnlp.linear, [x, w, bias], gpu.on_device(rng.standard_normal((5, v)), "float32"), "float32")


def test_one_feature_of_any_stride(gpu, rng):
    w, dy = gpu.on_device(rng.standard_normal((3, 1)), "float32"), gpu.on_device(rng.standard_normal((5, 3)), "float32")
    x = rng.standard_normal((5, 2)).astype(np.float32)
    for one in (x[:, :1], x[::-1, :1], np.broadcast_to(x[:1, :1], (5, 1))):
        check(fastnlp.linear, [gpu.wrap(one), w], dy, "float32")


def test_rows_that_are_read_eight_at_a_time(gpu):
    z, bias = gpu.on_device(np.zeros((3, 19)), "float16", pitch=24), gpu.on_device(np.zeros(19), "float16")
    assert whole(z) == whole(z, bias.reshape(1, 19)) == whole(z, None) == 16, "the length of one row does not matter"
    assert whole(bias.reshape(1, 19)) == 16
    assert whole(gpu.on_device(np.zeros((3, 19)), "float16")) == 0
    assert whole(z, gpu.on_device(np.zeros(19), "float16", offset=1).reshape(1, 19)) == 0


@pytest.mark.parametrize("pitch", [21, 24])
def test_upstream_gradients_that_are_apart(gpu, rng, pitch):
    dy = gpu.on_device(rng.standard_normal((5, 19)), "float32", pitch=pitch)
    check(fastnlp.linear, arguments(gpu, rng, "float32"), dy, "float32", activation="tanh")
