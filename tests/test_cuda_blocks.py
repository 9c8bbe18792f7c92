"""Blocks of all the threads that the GPU gets: other tests simulate fewer."""

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
pytest.importorskip("greenlet", reason="greenlet is not installed")
pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")

import fastnlp
from fastnlp.kernels.cuda import _schedule
from tests.simulated import SimulatedLibrary, host

ROWS, CLASSES = 2, 1037  # the tail is 5


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(_schedule, "_ELEMENTS_A_THREAD", 1)
    gpu = SimulatedLibrary(most_threads=1024, most_blocks=1)
    assert _schedule.grid(gpu, ROWS, CLASSES, 1024)[1] == 1024
    return gpu


def assert_right(gpu, function, *arrays, then=(), **options):
    """Value and gradients in float32, against float64."""
    args = [gpu.on_device(x, "float32", pitch=CLASSES + 3, readonly=True) for x in arrays]
    value, pullback = fastnlp.vjp(function)(*args, *(gpu.on_device(x) for x in then), **options)
    wide = [host(x).astype(np.float64) for x in args]
    truth, true_pullback = fastnlp.vjp(function)(*wide, *then, backend="reference", **options)
    dy = np.linspace(1, 2, np.size(truth)).reshape(np.shape(truth)).astype(np.float32)
    found = [value, *pullback(gpu.on_device(dy))]
    for one, wanted in zip(found, [truth, *true_pullback(dy.astype(float))], strict=True):
        assert (one is None) == (wanted is None)
        if one is not None:
            assert np.abs(wanted).max() > 1e-5
            np.testing.assert_allclose(one, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("function", [fastnlp.softmax, fastnlp.log_softmax, fastnlp.logsumexp])
def test_softmax(gpu, rng, function):
    assert_right(gpu, function, 2 * rng.standard_normal((ROWS, CLASSES)))


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "softcap": 5.0}], ids=str)
@pytest.mark.parametrize("target", ["label", "distribution"])
def test_cross_entropy(gpu, rng, target, options):
    x = 2 * rng.standard_normal((ROWS, CLASSES))
    if target == "label":
        assert_right(gpu, fastnlp.cross_entropy, x, then=[np.array([1036, 77])], reduction="none", **options)
    else:
        y = rng.dirichlet(np.ones(CLASSES), ROWS)
        assert_right(gpu, fastnlp.cross_entropy, x, y, reduction="none", **options)


@pytest.mark.parametrize("beta", [0, 1, 0.3])
def test_softmax_kl_div(gpu, rng, beta):
    assert_right(gpu, fastnlp.softmax_kl_div, *rng.standard_normal((2, ROWS, CLASSES)), beta=beta, reduction="none")
