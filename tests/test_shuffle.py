"""`Shuffle`: permutations that are even, that depend on the arguments alone, and the same on every backend."""

from __future__ import annotations

import inspect
from collections import Counter
from itertools import pairwise, permutations

import numpy as np
import pytest
from scipy import stats

import fastnlp
from fastnlp._dispatch import implementation
from fastnlp.ops._shuffle import Shuffle, permutation

SIZES = (0, 1, 2, 3, 17, 2047, 2048, 2049, 4097, 70_000, 300_001)  # around a bucket, two buckets, a chunk


def splitmix64(state, n):
    """The first n numbers of Steele, Lea and Flood's generator, in Python's integers."""
    mask = 2**64 - 1
    numbers = []
    for _ in range(n):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        numbers.append(z ^ (z >> 31))
    return numbers


def test_the_hash_is_splitmix64(backend):
    assert splitmix64(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]  # published values
    for stream in (0, 1234567, 2**64 - 1):
        hashes = splitmix64(stream, 3000)
        order = np.full(3000, -7, np.int32)
        implementation("_shuffle", backend).order_by_hash(np.uint64(stream), order)
        assert order.tolist() == sorted(range(3000), key=hashes.__getitem__)


@pytest.mark.parametrize("n", SIZES)
def test_a_permutation(n, backend):
    order = permutation(n, 5, 2, backend=backend)
    assert order.dtype == np.int32
    assert np.array_equal(np.sort(order), np.arange(n))


def test_orders_of_other_arguments_have_nothing_in_common(backend):
    arguments = [
        (0, 0, "items"),
        (1, 0, "items"),
        (0, 1, "items"),
        (0, 0, "rows"),
        (2**80, 0, "items"),
        (10, 0, "items"),
    ]
    drawn = [permutation(1000, seed, epoch, use=use, backend=backend) for seed, epoch, use in arguments]
    for i, a in enumerate(drawn):
        for b in drawn[:i]:
            assert np.count_nonzero(a == b) < 10
            assert abs(np.corrcoef(a, b)[0, 1]) < 0.15


def test_the_order_of_a_seed_never_changes(backend):
    """Those who resume a run in a later version rely on it."""
    assert permutation(10, 0, backend=backend).tolist() == [8, 9, 3, 7, 0, 1, 6, 5, 4, 2]
    assert permutation(100_000, 123, 4, use="rows", backend=backend)[:5].tolist() == [3875, 61317, 61404, 13536, 21470]


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_all_orders_are_equally_likely(n):
    orders = list(permutations(range(n)))
    drawn = Counter(tuple(permutation(n, seed, backend="reference").tolist()) for seed in range(100 * len(orders)))
    counts = [drawn[order] for order in orders]
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("n", [11, 64])
def test_places_and_neighbours_are_equally_likely(n):
    draws = 60 * n
    drawn = np.array([permutation(n, 0, epoch, backend="reference") for epoch in range(draws)])
    for a, b, cells in (
        (np.broadcast_to(np.arange(n), drawn.shape), drawn, n * n),  # which item in which place
        (drawn[:, :-1], drawn[:, 1:], n * (n - 1)),  # which item after which
    ):
        counts = np.bincount((a * n + b).ravel(), minlength=n * n)
        counts = counts[counts > 0]
        assert counts.size == cells
        z = (((counts - counts.mean()) ** 2 / counts.mean()).sum() - cells) / np.sqrt(2 * cells)
        assert abs(z) < 5


@pytest.mark.parametrize("runs", [1, 2, 7, 3000])
def test_runs_are_sorted_as_the_permutation_has_them(runs, backend, rng):
    n = 40_000
    items = rng.permutation(n).astype(np.int32)
    ptr = np.sort(np.append(rng.integers(0, n + 1, runs - 1), [0, n])).astype(np.int64)
    order = items.copy()
    shuffle = Shuffle(5, 1, backend)
    shuffle.runs(ptr, order)
    place = np.empty(n, np.int64)
    place[shuffle.permutation(n)] = np.arange(n)
    for begin, end in pairwise(ptr.tolist()):
        assert order[begin:end].tolist() == sorted(items[begin:end].tolist(), key=place.__getitem__)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_backends_and_threads_give_the_same_bits(n, dtype, rng):
    pytest.importorskip("numba", reason="numba is not installed")
    reference, cpu = (implementation("_shuffle", backend) for backend in ("reference", "cpu"))
    stream = np.uint64(2**63 + 12345)
    ptr = np.array([0, n // 3, n // 3, n // 2, n])
    wanted, in_runs = np.full((2, n), -7, dtype)
    reference.order_by_hash(stream, wanted)
    in_runs[:] = rng.permutation(n)
    items = in_runs.copy()
    reference.shuffle_runs(stream, ptr, in_runs)
    before = fastnlp.get_num_threads()
    try:
        for threads in (1, 2, 3, 8):
            fastnlp.set_num_threads(threads)
            order, runs = np.full(n, -7, dtype), items.copy()
            cpu.order_by_hash(stream, order)
            cpu.shuffle_runs(stream, ptr, runs)
            assert np.array_equal(order, wanted)
            assert np.array_equal(runs, in_runs)
    finally:
        fastnlp.set_num_threads(before)


def test_signatures_agree():
    pytest.importorskip("numba", reason="numba is not installed")
    for name in ("order_by_hash", "shuffle_runs"):
        reference, cpu = (getattr(implementation("_shuffle", backend), name) for backend in ("reference", "cpu"))
        assert inspect.signature(reference) == inspect.signature(cpu)
