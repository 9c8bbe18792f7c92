"""Rows that are gigabytes apart give the same bits as rows side by side: no kernel's offsets have 32 bits.

Only addresses are so large, not memory: three rows at 2**30 elements from one to the next.
"""

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
pytest.importorskip("greenlet", reason="greenlet is not installed")
pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")

import fastnlp
from fastnlp.kernels.cuda import linear
from tests.simulated import SimulatedLibrary, host

ROWS, CLASSES, APART = 3, 24, 2**30 + 8
LABEL = np.array([3, 23, 8])


@pytest.fixture
def gpu():
    return SimulatedLibrary()


def value_and_gradients(gpu, function, *args, **options):
    """Return what a function gives, and its gradients, as NumPy arrays."""
    with np.errstate(over="ignore"):
        value, pullback = fastnlp.vjp(function)(*args, **options)
    dy = gpu.on_device(np.linspace(1, 2, np.size(value)).reshape(np.shape(value)), value.dtype)
    return [value, *(gradient for gradient in pullback(dy) if gradient is not None)]


def assert_same_bits(gpu, function, *arrays, then=(), **options):
    found = []
    for pitch in (CLASSES, APART):
        args = [gpu.on_device(x, "float16", pitch=pitch, readonly=True) for x in arrays]
        found.append(value_and_gradients(gpu, function, *args, *(gpu.on_device(x) for x in then), **options))
    for near, far in zip(*found, strict=True):
        assert np.isfinite(near).all()
        assert near.tobytes() == far.tobytes()


@pytest.mark.parametrize("function", [fastnlp.softmax, fastnlp.log_softmax, fastnlp.logsumexp])
def test_softmax(gpu, rng, function):
    assert_same_bits(gpu, function, rng.standard_normal((ROWS, CLASSES)))


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"softcap": 5.0}], ids=str)
@pytest.mark.parametrize("target", ["label", "distribution"])
def test_cross_entropy(gpu, rng, target, options):
    x = rng.standard_normal((ROWS, CLASSES))
    if target == "label":
        assert_same_bits(gpu, fastnlp.cross_entropy, x, then=[LABEL], reduction="none", **options)
    else:
        y = rng.dirichlet(np.ones(CLASSES), ROWS)
        assert_same_bits(gpu, fastnlp.cross_entropy, x, y, reduction="none", **options)


@pytest.mark.parametrize("beta", [0, 1, 0.3])
def test_softmax_kl_div(gpu, rng, beta):
    x, y = rng.standard_normal((2, ROWS, CLASSES))
    assert_same_bits(gpu, fastnlp.softmax_kl_div, x, y, beta=beta, reduction="none")


@pytest.mark.parametrize("mode", ["cls", "last", "mean", "max"])
def test_pool(gpu, rng, mode):
    bounds = gpu.on_device(np.array([0, 1, ROWS]))
    assert_same_bits(gpu, fastnlp.pool, rng.standard_normal((ROWS, CLASSES)), cu_seqlens=bounds, mode=mode)


def test_passes_over_logits(gpu, rng):
    """Bias, activation and column sums, of arrays that only drivers have."""
    x, dy = rng.standard_normal((2, ROWS, CLASSES))
    found = []
    for pitch in (CLASSES, APART):
        z, dz = (gpu.on_device(a, "float16", pitch=pitch) for a in (x, dy))
        linear._finish(z, gpu.on_device(np.arange(CLASSES), "float16"), None)
        linear.activation_backward(z, dz, "tanh", dz)
        total = gpu.empty(CLASSES, np.float32)
        linear.add_columns(dz, total, accumulate=False)
        found.append([host(one) for one in (z, dz, total)])
    for near, far in zip(*found, strict=True):
        assert np.abs(near).max() > 0.1
        assert near.tobytes() == far.tobytes()
