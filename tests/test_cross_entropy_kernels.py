"""The compiled rows of `cross_entropy` where they part from the reference: blocks, streams, soft-caps, infinities."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

pytest.importorskip("numba", reason="numba is not installed")

from fastnlp._dispatch import implementation
from fastnlp.kernels.cpu import cross_entropy as kernels
from fastnlp.ops._criterion import Criterion, Stats

PLAIN = Criterion(None, None, None, 0.0, 1.0, None)
SMOOTHED = PLAIN._replace(label_smoothing=0.1)


def run(x, criterion, module=kernels, scale=None, lse_scale=None, stats=True):
    n = len(x)
    loss, lse, dx = np.full(n, np.nan, x.dtype), np.full(n, np.nan, x.dtype), np.full_like(x, np.nan)
    told = Stats(np.full(n, np.nan, x.dtype), np.full(n, np.nan, x.dtype), np.full(n, 10**9)) if stats else None
    scale = np.ones(n, x.dtype) if scale is None else scale
    module.gradient(x, criterion, scale, lse_scale, loss, lse, told, dx)
    alone, its_lse = np.full(n, np.nan, x.dtype), np.full(n, np.nan, x.dtype)
    module.forward(x, criterion, alone, its_lse, None)
    assert_allclose(alone, loss, rtol=4 * np.finfo(x.dtype).eps)
    assert_allclose(its_lse, lse, rtol=4 * np.finfo(x.dtype).eps)
    return loss, lse, told, dx


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [1, 2, 1023, 1024, 1025, 2047, 2049, 5000])
def test_targets_at_the_edges_of_blocks(classes, dtype, rng):
    at = np.unique(np.clip([0, 1, 1022, 1023, 1024, 1025, 2047, 2048, classes - 2, classes - 1], 0, classes - 1))
    x = (rng.standard_normal((len(at), classes)) * 3).astype(dtype)
    x[::2].sort(axis=1)  # a new maximum in every block
    truth = run(x.astype(np.float64), PLAIN._replace(target=at), implementation("cross_entropy", "reference"))
    for stats in (False, True):
        loss, lse, _, dx = run(x, PLAIN._replace(target=at), stats=stats)
        rtol = 1e-6 if dtype == np.float32 else 1e-13
        assert_allclose(loss, truth[0], rtol=rtol, atol=rtol * (classes == 1))
        assert_allclose(lse, truth[1], rtol=rtol)
        assert_allclose(dx, truth[3], rtol=4 * rtol, atol=rtol**2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_gradient_written_past_the_caches_is_the_same(dtype, rng, monkeypatch):
    x, target = rng.standard_normal((20, 3001)).astype(dtype), rng.integers(0, 3001, 20)
    target[3] = -1
    scale, written = rng.standard_normal(20).astype(dtype), []
    for streamed in (False, True):
        monkeypatch.setattr(kernels, "streamed", lambda out, streamed=streamed: streamed)
        written.append(run(x, PLAIN._replace(target=target), scale=scale, stats=False)[3])
    assert_array_equal(written[0], written[1])
    assert not written[0][3].any()


def test_large_gradients_are_written_past_the_caches(rng, monkeypatch):
    seen = []
    monkeypatch.setattr(kernels, "run", lambda kernel, n, *args, grain: seen.append(args[-1]))
    for shape in ((300, 32_768), (10, 32_768), (1 << 20, 10)):  # of the last, each row ends within a cache line
        x = np.empty(shape, np.float32)
        empty = np.empty(shape[0], np.float32)
        target = np.empty(shape[0], np.int64)
        kernels.gradient(x, PLAIN._replace(target=target), empty, None, empty, empty, None, x)
    assert seen == [True, False, False]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("level", [-200, -60, 0.1, 20, 60, 200])
def test_flat_softcap(level, dtype, rng):
    """Where all logits are at the cap, what is left of their differences, and of the slope, has its digits."""
    x, target = (level + 3 * rng.standard_normal((6, 1500))).astype(dtype), rng.integers(0, 1500, 6)
    criterion = SMOOTHED._replace(target=target, softcap=30.0)
    reference = implementation("cross_entropy", "reference")
    truth = run(x.astype(np.float64), criterion, reference)
    loss, lse, stats, dx = run(x, criterion)
    rtol = 1e-6 if dtype == np.float32 else 1e-12
    for ours, true in ((loss, truth[0]), (lse, truth[1]), (stats.nll, truth[2].nll), (stats.entropy, truth[2].entropy)):
        assert_allclose(ours, true, rtol=rtol)
    assert_array_equal(stats.argmax, x.argmax(axis=1))
    if abs(level) < 100:  # beyond, float64 itself has lost the slope
        largest = np.abs(truth[3]).max(axis=1, keepdims=True)
        assert (np.abs(dx - truth[3]) <= 4 * rtol * largest).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nearly_one_hot(dtype, rng):
    """The mass of the other classes is not the difference of the whole and the largest."""
    x = rng.standard_normal((3, 2000)).astype(dtype)
    x[:, 700] = 40
    p = np.full((3, 2000), 1e-12, dtype)
    p[:, 700] = 1
    below = 40 - np.delete(x, 700, axis=1).astype(np.float64)
    rest, small = np.exp(-below).sum(axis=1), float(p[0, 0])
    mass = 1 + 1999 * small
    rtol = 1e-6 if dtype == np.float32 else 1e-12
    loss, _, _, dx = run(x, PLAIN._replace(probabilities=p))
    assert_allclose(loss, small * below.sum(axis=1) + mass * np.log1p(rest), rtol=rtol)
    assert_allclose(dx[:, 700], 1999 * small - mass * rest / (1 + rest), rtol=rtol)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("stats", [False, True])
def test_masked_classes_leave_nothing(stats, dtype):
    """exp of -inf is 0 to the last bit: of 5,000 classes, all but one masked."""
    x = np.full((3, 5000), -np.inf, dtype)
    target = np.array([0, 2500, 4999])
    x[np.arange(3), target] = [-3, 0, 1e4]
    loss, lse, told, dx = run(x, PLAIN._replace(target=target), stats=stats)
    assert not loss.any()
    assert_array_equal(lse, [-3, 0, 1e4])
    assert not dx.any()
    assert not stats or not told.entropy.any()


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("criterion", [PLAIN, SMOOTHED, PLAIN._replace(temperature=2.0), PLAIN._replace(softcap=3.0)])
@pytest.mark.parametrize("stats", [False, True])
def test_nan_and_infinities_as_the_reference_has_them(stats, criterion, rng):
    inf, nan = np.inf, np.nan
    x = rng.standard_normal((12, 1100))
    for row, (at, value) in enumerate([(0, nan), (1099, nan), (0, inf), (1099, inf), (0, -inf), (1099, -inf)]):
        x[row, at] = value
    x[6], x[7], x[8, :1024], x[9, :1050], x[10, [3, 5]] = -inf, nan, -inf, nan, inf
    for target in (np.full(12, 0), np.full(12, 1099), np.full(12, 500)):
        given = criterion._replace(target=target)
        ours = run(x, given, stats=stats)
        true = run(x, given, implementation("cross_entropy", "reference"), stats=stats)
        for one, other in ((ours[0], true[0]), (ours[1], true[1]), (ours[3], true[3])):
            assert_allclose(one, other, rtol=1e-12, atol=1e-15)
        if stats:
            for one, other in zip(ours[2], true[2], strict=True):
                assert_allclose(one, other, rtol=1e-12)
