"""`pool` and its gradients."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastnlp
from fastnlp._dispatch import implementation
from fastnlp.ops.pool import MODES
from tests.numerics import assert_within_budget, frozen, numeric_gradient, strided

NAIVE = {"cls": lambda x: x[0], "last": lambda x: x[-1], "mean": lambda x: x.mean(0), "max": lambda x: x.max(0)}


def naive(hidden, mode, *, lengths=None, cu_seqlens=None):
    if cu_seqlens is not None:
        rows = [hidden[a:b] for a, b in pairwise(cu_seqlens)]
    else:
        rows = [row[:length] for row, length in zip(hidden, lengths, strict=True)]
    return np.array([NAIVE[mode](row) for row in rows]).reshape(len(rows), hidden.shape[-1])


def packed(rng, lengths, d, dtype=np.float64):
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)])
    return rng.standard_normal((int(cu_seqlens[-1]), d)).astype(dtype), cu_seqlens


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
# one of all; a feature; a prime number of features; a sequence of several tasks; more sequences than a task holds
@pytest.mark.parametrize(
    ("lengths", "d"), [([1], 1), ([3, 1, 5], 1), ([2, 9, 1], 37), ([3000, 2], 50), ([4] * 600, 40)]
)
def test_packed_and_padded_match_the_naive_code(mode, dtype, lengths, d, backend, rng):
    hidden, cu_seqlens = packed(rng, lengths, d, dtype)
    truth = naive(hidden.astype(np.float64), mode, cu_seqlens=cu_seqlens)
    plain = naive(hidden, mode, cu_seqlens=cu_seqlens)
    y = fastnlp.pool(hidden, mode=mode, cu_seqlens=cu_seqlens, backend=backend)
    assert_within_budget(y, truth, plain, ulps=1)
    assert_array_equal(
        fastnlp.pool(hidden[None], mode=mode, cu_seqlens=cu_seqlens.astype(np.int32), backend=backend), y
    )
    padded = np.full((len(lengths), max(lengths) + 1, d), np.nan, dtype)  # padding is not read
    for n, length in enumerate(lengths):
        padded[n, :length] = hidden[cu_seqlens[n] : cu_seqlens[n + 1]]
    assert_array_equal(fastnlp.pool(padded, mode=mode, lengths=lengths, backend=backend), y)


@pytest.mark.parametrize("mode", MODES)
def test_without_lengths_all_vectors_count(mode, backend, rng):
    hidden = rng.standard_normal((3, 4, 5))
    assert_allclose(fastnlp.pool(hidden, mode=mode, backend=backend), naive(hidden, mode, lengths=[4] * 3), rtol=1e-14)
    assert_array_equal(fastnlp.pool(hidden, backend=backend), hidden[:, 0])


@pytest.mark.parametrize("mode", MODES)
def test_gradients(mode, backend, rng):
    hidden, cu_seqlens = packed(rng, [3, 1, 4], 2)
    options = {"mode": mode, "cu_seqlens": cu_seqlens, "backend": backend}
    y, pullback = fastnlp.vjp(fastnlp.pool)(hidden, **options)
    dy = rng.standard_normal(y.shape)
    truth = numeric_gradient(lambda x: fastnlp.pool(x, **options), hidden, dy)
    assert_allclose(pullback(dy).hidden, truth, rtol=1e-6, atol=1e-9)
    padded, lengths = rng.standard_normal((3, 4, 2)), [2, 4, 1]
    options = {"mode": mode, "lengths": lengths, "backend": backend}
    dy = rng.standard_normal((3, 2))
    gradient = fastnlp.vjp(fastnlp.pool)(padded, **options)[1](dy).hidden
    assert_allclose(gradient, numeric_gradient(lambda x: fastnlp.pool(x, **options), padded, dy), rtol=1e-6, atol=1e-9)
    assert not gradient[0, 2:].any()


def test_gradients_of_large_outputs_are_the_same_on_both_backends(rng):
    pytest.importorskip("numba", reason="numba is not installed")
    hidden = rng.standard_normal((9, 300, 64)).astype(np.float32)
    for mode in MODES:
        results = []
        for backend in ("reference", "cpu"):
            y, pullback = fastnlp.vjp(fastnlp.pool)(hidden, mode=mode, lengths=np.arange(1, 10) * 30, backend=backend)
            results.append((y, pullback(np.arange(9 * 64.0).reshape(9, 64)).hidden))
        for a, b in zip(*results, strict=True):
            assert a.any()
            assert_allclose(a, b, rtol=1e-6)


def test_max_gives_ties_to_the_first_place_and_keeps_nan(backend):
    hidden = np.array([[[1, 2, np.nan, -np.inf], [3, np.nan, 5, -np.inf], [3, 7, np.nan, -np.inf]]])
    y, pullback = fastnlp.vjp(fastnlp.pool)(hidden, mode="max", backend=backend)
    assert_array_equal(y, [[3, np.nan, np.nan, -np.inf]])
    assert_array_equal(pullback(np.ones((1, 4))).hidden[0], [[0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])


def test_mean_keeps_its_accuracy_over_long_sequences(backend):
    hidden = np.full((1, 200_000, 2), 0.1, np.float32)
    assert_array_equal(fastnlp.pool(hidden, mode="mean", backend=backend), np.full((1, 2), 0.1, np.float32))
    big = np.full((1, 2, 1), 3e38, np.float32)  # whose sum is beyond float32
    assert_array_equal(fastnlp.pool(big, mode="mean", backend=backend), big[:, 0])


def test_mean_of_what_is_not_finite(backend):
    hidden = np.array([[[np.inf, np.inf, np.nan], [1, -np.inf, 0]]])
    assert_array_equal(fastnlp.pool(hidden, mode="mean", backend=backend), [[np.inf, np.nan, np.nan]])


@pytest.mark.parametrize("mode", MODES)
def test_empty(mode, backend):
    for hidden, given in (
        (np.empty((0, 3)), {"cu_seqlens": [0]}),
        (np.empty((0, 4, 3)), {}),
        (np.empty((0, 4, 3)), {"lengths": []}),
        (np.empty((2, 4, 0)), {}),
    ):
        y, pullback = fastnlp.vjp(fastnlp.pool)(hidden, mode=mode, **given, backend=backend)
        assert y.shape == (2 if hidden.ndim == 3 and len(hidden) else 0, hidden.shape[-1])
        assert pullback(y).hidden.shape == hidden.shape


@pytest.mark.parametrize("mode", MODES)
def test_layouts_half_precision_and_out(mode, backend, rng):
    hidden, cu_seqlens = packed(rng, [3, 1, 4], 6, np.float32)
    options = {"mode": mode, "cu_seqlens": cu_seqlens, "backend": backend}
    y, pullback = fastnlp.vjp(fastnlp.pool)(hidden, **options)
    dx = pullback(frozen(y)).hidden
    for other in (frozen(hidden), strided(hidden), np.asfortranarray(hidden), hidden.astype(">f4")):
        z, other_pullback = fastnlp.vjp(fastnlp.pool)(other, **{**options, "cu_seqlens": frozen(cu_seqlens)})
        assert_array_equal(z, y)
        assert_array_equal(other_pullback(strided(y)).hidden, dx)
    for out in (np.full((3, 6), np.nan, np.float32), strided(np.zeros((3, 6), np.float32))):
        assert fastnlp.pool(hidden, **options, out=out) is out
        assert_array_equal(out, y)
    overlapping = hidden.copy()
    fastnlp.pool(overlapping, **options, out=overlapping[1:4])
    assert_array_equal(overlapping[1:4], y)
    half = hidden.astype(np.float16)
    z, half_pullback = fastnlp.vjp(fastnlp.pool)(half, **options)
    dz = half_pullback(z).hidden
    assert z.dtype == dz.dtype == np.float16
    assert_array_equal(z, fastnlp.pool(half.astype(np.float32), **options).astype(np.float16))


def test_kernels_write_every_element(backend, rng):
    kernels = implementation("pool", backend)
    x, begin, end = rng.standard_normal((9, 3)), np.array([0, 4, 9]), np.array([3, 9])
    out, place, dx = np.full((2, 3), np.nan), np.full((2, 3), -1, np.int32), np.full((9, 3), np.nan)
    kernels.mean(x, begin, end, out)
    assert_allclose(out, [x[:3].mean(0), x[4:].mean(0)], rtol=1e-14)
    kernels.mean_backward(out, begin, end, dx)
    assert_allclose(dx, np.repeat([out[0] / 3, [0, 0, 0], out[1] / 5], [3, 1, 5], axis=0), rtol=1e-14)
    out[...], dx[...] = np.nan, np.nan
    kernels.max(x, begin, end, out, place)
    assert_array_equal(out, [x[:3].max(0), x[4:].max(0)])
    assert_array_equal(place, [x[:3].argmax(0), x[4:].argmax(0)])
    kernels.max_backward(out, begin, end, place, dx)
    assert np.count_nonzero(dx) == 6
    assert_array_equal(dx.sum(axis=0), out.sum(axis=0))


@pytest.mark.parametrize("mode", ["mean", "max"])
def test_same_bits_for_any_number_of_threads(mode, rng):
    pytest.importorskip("numba", reason="numba is not installed")
    hidden, cu_seqlens = packed(rng, rng.integers(1, 90, 200), 64, np.float32)
    before, results = fastnlp.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 8):
            fastnlp.set_num_threads(threads)
            y, pullback = fastnlp.vjp(fastnlp.pool)(hidden, mode=mode, cu_seqlens=cu_seqlens, backend="cpu")
            results.append((y, pullback(y).hidden))
    finally:
        fastnlp.set_num_threads(before)
    for y, dx in results[1:]:
        assert_array_equal(y, results[0][0])
        assert_array_equal(dx, results[0][1])


@pytest.mark.parametrize("mode", MODES)
def test_leads_to_a_classification_head(mode, backend, rng):
    hidden, cu_seqlens = packed(rng, [3, 1, 4], 6)
    weight = rng.standard_normal((5, 6))
    y = fastnlp.pool(hidden, mode=mode, cu_seqlens=cu_seqlens, backend=backend)
    logits = naive(hidden, mode, cu_seqlens=cu_seqlens) @ weight.T
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert_allclose(fastnlp.linear_softmax(y, weight, backend=backend), p, rtol=1e-12)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"mode": "first"}, ValueError, "mode must be one of 'cls', 'mean', 'max', 'last', got 'first'"),
        ({"lengths": [1, 4]}, ValueError, "lengths holds 4 for sequence 1, but hidden has room for 1 to 3 vectors"),
        ({"lengths": [1, -1]}, ValueError, "lengths holds -1 for sequence 1"),
        ({"lengths": [0, 4]}, ValueError, "sequence 0 is empty, so there is nothing to pool: leave"),
        ({"lengths": [1]}, ValueError, "lengths must have an entry for each of the 2 sequences of hidden, got 1"),
        ({"lengths": [1.0, 2.0]}, TypeError, "lengths must be integers"),
        ({"lengths": [1, 2], "cu_seqlens": [0, 3]}, ValueError, "give one of them"),
        ({"cu_seqlens": [0, 6]}, ValueError, r"hidden must have shape \(T, D\) or \(1, T, D\) with cu_seqlens"),
        ({"hidden": np.zeros((6, 4))}, ValueError, r"got \(6, 4\): for sequences one after another, .*give cu_seqlens"),
        ({"hidden": np.zeros((2, 0, 4))}, ValueError, "sequence 0 is empty"),
        ({"hidden": np.zeros((2, 3, 4), int)}, TypeError, "hidden must be float32"),
        ({"hidden": np.zeros(4), "cu_seqlens": [0, 4]}, ValueError, "hidden must have shape"),
        ({"out": np.zeros((2, 3))}, ValueError, r"out must have shape \(2, 4\)"),
        ({"out": np.zeros((2, 4), np.float32)}, TypeError, "out must be an array of float64"),
    ],
)
def test_bad_input(given, error, message, backend):
    given = {"hidden": np.zeros((2, 3, 4)), **given}
    with pytest.raises(error, match=message):
        fastnlp.pool(**given, backend=backend)


@pytest.mark.parametrize(
    ("cu_seqlens", "message"),
    [
        ([], "cu_seqlens must go from 0 to the 6 vectors of hidden, got no entries"),
        ([0, 5], "from 0 to 5"),
        ([1, 6], "from 1 to 6"),
        ([0, 2, 2, 6], "sequence 1 is empty"),
        ([0, 6, 6, 6], "sequence 1 is empty"),  # as some collators fill up cu_seqlens
        ([0, 4, 2, 6], "cu_seqlens falls from 4 to 2 at sequence 1"),
        ([[0, 6]], "cu_seqlens must have one axis"),
    ],
)
def test_bad_cu_seqlens(cu_seqlens, message, backend):
    with pytest.raises(ValueError, match=message):
        fastnlp.pool(np.zeros((6, 4)), cu_seqlens=np.array(cu_seqlens, np.int64), backend=backend)
