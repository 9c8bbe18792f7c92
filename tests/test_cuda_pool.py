"""`pool` and its gradients on a GPU, run by the simulator, against the CPU in float64."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastnlp
from fastnlp.ops.pool import MODES

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
pytest.importorskip("greenlet", reason="greenlet is not installed")

from tests.simulated import SimulatedLibrary, host

DTYPES = {"float32": 4e-7, "float16": 1e-3, "bfloat16": 8e-3}  # half a unit in the last place of what is rounded


@pytest.fixture
def gpu():
    return SimulatedLibrary()


def truth(hidden, dy=None, **options):
    """Return the value in float64, and the gradient."""
    y, pullback = fastnlp.vjp(fastnlp.pool)(np.asarray(hidden).astype(np.float64), backend="reference", **options)
    return y, None if dy is None else pullback(np.asarray(dy).astype(np.float64)).hidden


def assert_close(actual, expected, dtype):
    actual = np.asarray(actual).astype(np.float64)
    assert_allclose(actual, expected, rtol=DTYPES[dtype], atol=DTYPES[dtype] * np.abs(expected).max(initial=0))


def ragged(rng, lengths, d):
    cu_seqlens = np.append(0, np.cumsum(lengths))
    return rng.standard_normal((cu_seqlens[-1], d)), cu_seqlens


# one of all; a tile and a feature; a long sequence beside short ones; not aligned; rows apart; more tiles than blocks
CASES = [
    ([1], 1, {}),
    ([3, 1, 5], 65, {}),
    ([90, 2, 1], 72, {}),
    ([2, 9, 1], 64, {"offset": 1}),
    ([4, 7], 37, {"pitch": 40}),
    ([2] * 12, 130, {}),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("lengths", "d", "layout"), CASES)
def test_values_and_gradients_are_those_of_float64(rng, mode, dtype, lengths, d, layout):
    gpu = SimulatedLibrary(processors=1)
    values, cu_seqlens = ragged(rng, lengths, d)
    x = gpu.on_device(values, dtype, readonly=True, **layout)
    dy = gpu.on_device(rng.standard_normal((len(lengths), d)), dtype, readonly=True)
    y, pullback = fastnlp.vjp(fastnlp.pool)(x, mode=mode, cu_seqlens=cu_seqlens)
    value, gradient = truth(host(x), host(dy), mode=mode, cu_seqlens=cu_seqlens)
    dx = pullback(dy).hidden
    assert y.dtype == dx.dtype == x.dtype
    assert dx.shape == x.shape
    if mode == "mean":
        assert_close(y, value, dtype)
        assert_close(dx, gradient, dtype)
    else:
        assert_array_equal(y, value)
        assert_array_equal(dx, gradient)
    assert gpu.waits == []


@pytest.mark.parametrize("mode", MODES)
def test_lengths_on_the_host_or_the_gpu(gpu, rng, mode):
    hidden, lengths = rng.standard_normal((3, 5, 12)).astype(np.float32), np.array([2, 5, 1])
    padded = np.where(np.arange(5)[:, None] < lengths[:, None, None], hidden, np.nan)  # padding is not read
    dy = rng.standard_normal((3, 12)).astype(np.float32)
    x, upstream = gpu.on_device(padded, np.float32), gpu.on_device(dy)
    value, gradient = truth(hidden, dy, mode=mode, lengths=lengths)
    for given in (lengths, lengths.tolist(), gpu.on_device(lengths), gpu.on_device(lengths.astype(np.int16))):
        y, pullback = fastnlp.vjp(fastnlp.pool)(x, mode=mode, lengths=given)
        assert_close(y, value, "float32")
        assert_close(pullback(upstream).hidden, gradient, "float32")
    x = gpu.on_device(hidden)
    y, pullback = fastnlp.vjp(fastnlp.pool)(x, mode=mode)
    value, gradient = truth(hidden, dy, mode=mode)
    assert_close(y, value, "float32")
    assert_close(pullback(upstream).hidden, gradient, "float32")
    cu_seqlens = np.array([0, 4, 15])
    value = truth(hidden.reshape(15, 12), mode=mode, cu_seqlens=cu_seqlens)[0]
    for given in (cu_seqlens, gpu.on_device(cu_seqlens), gpu.on_device(cu_seqlens.astype(np.int32))):
        for flat in (x.reshape(15, 12), x.reshape(1, 15, 12)):
            assert_close(fastnlp.pool(flat, mode=mode, cu_seqlens=given), value, "float32")
    assert gpu.waits == []


@pytest.mark.parametrize("mode", MODES)
def test_what_is_on_the_gpu_cannot_lead_out_of_the_vectors(gpu, rng, mode):
    x = gpu.on_device(rng.standard_normal((6, 9)), np.float32)
    dy = gpu.on_device(np.ones((3, 9), np.float32))
    for wrong in ([0, 2, 2, 6], [-7, 3, 99, 5], [5, 1, 2, 0], [9, 9, 9, 9]):
        y, pullback = fastnlp.vjp(fastnlp.pool)(x, mode=mode, cu_seqlens=gpu.on_device(np.array(wrong)))
        begin = np.clip(wrong, 0, 6)
        empty = begin[1:] <= begin[:-1]
        assert_array_equal(np.isnan(y).all(axis=1), empty)
        assert not np.isnan(y[~empty]).any()
        if (np.diff(wrong) >= 0).all():  # those that fall say twice whose a vector is
            gradient = pullback(dy).hidden
            assert_allclose(gradient.sum(axis=0), (~empty).sum(), rtol=1e-6)
    padded = x.reshape(3, 2, 9)
    y, pullback = fastnlp.vjp(fastnlp.pool)(padded, mode=mode, lengths=gpu.on_device(np.array([5, 0, -1])))
    assert_close(y[:1], truth(host(padded)[:1], mode=mode)[0], "float32")
    assert np.isnan(y[1:]).all()
    assert not pullback(dy).hidden[1:].any()


@pytest.mark.parametrize("mode", MODES)
def test_vectors_of_no_sequence_have_no_gradient(gpu, rng, mode):
    """A buffer of fixed size may be longer than its sequences, and have fewer of them than it has room for."""
    x = gpu.on_device(rng.standard_normal((9, 8)), np.float32)
    _, pullback = fastnlp.vjp(fastnlp.pool)(x, mode=mode, cu_seqlens=gpu.on_device(np.array([2, 3, 6, 6])))
    dx = pullback(gpu.on_device(np.ones((3, 8), np.float32))).hidden
    assert not dx[:2].any()
    assert not dx[6:].any()
    assert_allclose(dx[2:6].sum(axis=0), 2, rtol=1e-6)
    none, pullback = fastnlp.vjp(fastnlp.pool)(x, mode=mode, cu_seqlens=gpu.on_device(np.zeros(1, int)))
    assert none.shape == (0, 8)
    assert not pullback(gpu.on_device(none)).hidden.any()


def test_max_gives_ties_to_the_first_place_and_keeps_nan(gpu, rng):
    hidden = np.array([[[1, 2, np.nan, -np.inf], [3, np.nan, 5, -np.inf], [3, 7, np.nan, -np.inf]]], np.float32)
    ties = rng.integers(0, 2, (1, 40, 33)).astype(np.float32)
    ties[0, :, ::5] = rng.choice([np.nan, 1], (40, 7))
    for rows in (hidden, np.tile(hidden, (1, 1, 2)), np.tile(hidden[:, :2], (1, 30, 4)), ties):
        d = rows.shape[-1]
        y, pullback = fastnlp.vjp(fastnlp.pool)(gpu.on_device(rows), mode="max")
        assert_array_equal(y, truth(rows, mode="max")[0])
        ones = np.ones((1, d), np.float32)
        assert_array_equal(pullback(gpu.on_device(ones)).hidden, truth(rows, ones, mode="max")[1])


def test_mean_keeps_its_accuracy_over_long_sequences():
    gpu = SimulatedLibrary(races=False)
    hidden = np.full((1, 6000, 1), 0.1, np.float32)
    assert_allclose(fastnlp.pool(gpu.on_device(hidden), mode="mean"), np.float32(0.1), rtol=5e-7)


def test_mean_of_what_is_not_finite(gpu):
    hidden = np.array([[[np.inf, np.inf, np.nan], [1, -np.inf, 0]]], np.float32)
    assert_array_equal(fastnlp.pool(gpu.on_device(hidden), mode="mean"), [[np.inf, np.nan, np.nan]])


def test_the_same_bits_in_any_order_of_blocks_and_threads(rng):
    values, cu_seqlens = ragged(rng, rng.integers(1, 30, 4), 66)
    for mode in ("mean", "max"):
        results = []
        for seed in (0, 1, 2):
            gpu = SimulatedLibrary(seed=seed, processors=1 + seed)
            y, pullback = fastnlp.vjp(fastnlp.pool)(gpu.on_device(values, "float32"), mode=mode, cu_seqlens=cu_seqlens)
            results.append((y, pullback(gpu.on_device(y)).hidden))
        for y, dx in results[1:]:
            assert_array_equal(y, results[0][0])
            assert_array_equal(dx, results[0][1])


@pytest.mark.parametrize("mode", MODES)
def test_empty(gpu, mode):
    for shape, given in (((0, 3), {"cu_seqlens": [0]}), ((0, 4, 3), {}), ((0, 4, 3), {"lengths": []}), ((2, 4, 0), {})):
        y, pullback = fastnlp.vjp(fastnlp.pool)(gpu.empty(shape, np.float32), mode=mode, **given)
        assert y.shape == (shape[0] if len(shape) == 3 else 0, shape[-1])
        assert pullback(gpu.on_device(y)).hidden.shape == shape


@pytest.mark.parametrize("mode", MODES)
def test_out_and_views(gpu, rng, mode):
    hidden = rng.standard_normal((3, 4, 16)).astype(np.float32)
    x = gpu.on_device(hidden)
    expected = truth(hidden[:, :, ::2], mode=mode)[0]
    for out in (gpu.empty((3, 8), np.float32), gpu.on_device(np.zeros((3, 8), np.float32), pitch=11)):
        filled = fastnlp.pool(x[:, :, ::2], mode=mode, out=out)
        assert np.shares_memory(filled, out.owner)
        assert_close(host(out), expected, "float32")
    within = x.reshape(12, 16)[:3]
    fastnlp.pool(x, mode=mode, out=within)
    assert_close(host(within), truth(hidden, mode=mode)[0], "float32")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"lengths": [1, 4]}, ValueError, "lengths holds 4 for sequence 1, but hidden has room for 1 to 3 vectors"),
        ({"lengths": [0, 4]}, ValueError, "sequence 0 is empty"),
        ({"lengths": "on_gpu", "values": np.ones(3, int)}, ValueError, "an entry for each of the 2 sequences"),
        ({"lengths": "on_gpu", "values": np.ones(2)}, TypeError, "lengths must be integers, got float64"),
        ({"lengths": "on_gpu", "values": np.ones((2, 1), int)}, ValueError, "lengths must have one axis"),
        ({"backend": "cpu"}, TypeError, "backend 'cpu' does not run on arrays on the GPU"),
        ({"out": np.zeros((2, 4), np.float32)}, TypeError, "out must be an array of float32 beside the input"),
    ],
)
def test_bad_input(gpu, given, error, message):
    given = dict(given)
    if given.get("lengths") == "on_gpu":
        given["lengths"] = gpu.on_device(given.pop("values"))
    with pytest.raises(error, match=message):
        fastnlp.pool(gpu.on_device(np.zeros((2, 3, 4), np.float32)), **given)


def test_bad_cu_seqlens_and_dtypes(gpu):
    x = gpu.on_device(np.zeros((6, 4), np.float32))
    with pytest.raises(ValueError, match="from 0 to 5"):
        fastnlp.pool(x, cu_seqlens=[0, 5])
    with pytest.raises(ValueError, match="cu_seqlens has no entries"):
        fastnlp.pool(x, cu_seqlens=gpu.on_device(np.zeros(0, int)))
    with pytest.raises(TypeError, match="float32, float16 or bfloat16 on a GPU, got float64"):
        fastnlp.pool(gpu.on_device(np.zeros((6, 4))), cu_seqlens=[0, 6])
    with pytest.raises(TypeError, match="are mixed in one call"):
        fastnlp.pool(np.zeros((6, 4)), cu_seqlens=gpu.on_device(np.array([0, 6])))
