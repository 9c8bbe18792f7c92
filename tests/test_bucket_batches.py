"""`bucket_batches`: every item once, like lengths together, the same batches for the same seed."""

from __future__ import annotations

import importlib
import pickle

import numpy as np
import pytest

import fastnlp


def assert_sound(batches, lengths, batch_size, *, pad_to_multiple=1):
    """No item twice, batches no larger than asked for, and figures that agree with the batches."""
    lengths = np.asarray(lengths, dtype=np.int64)
    items = batches.items.tolist()
    assert len(set(items)) == len(items) == lengths.size - batches.n_dropped
    assert set(items) <= set(range(lengths.size))
    assert all(1 <= batch.size <= batch_size for batch in batches)
    longest = [int(lengths[batch].max()) for batch in batches]
    assert batches.padded_lengths.tolist() == [-(-n // pad_to_multiple) * pad_to_multiple for n in longest]
    assert batches.batch_tokens.tolist() == [int(lengths[batch].sum()) for batch in batches]
    assert batches.real_tokens == int(lengths[batches.items].sum())
    padded = sum(batch.size * int(n) for batch, n in zip(batches, batches.padded_lengths, strict=True))
    assert batches.padded_tokens == padded
    assert batches.efficiency == (batches.real_tokens / padded if padded else 1.0)


def contents(batches):
    return [batch.tolist() for batch in batches]


@pytest.fixture
def lengths(rng):
    """Sentence lengths with a long tail; more than the batches of any test hold evenly."""
    return np.clip(rng.lognormal(np.log(20), 0.7, 1003), 0, 200).astype(np.int32)


def test_hand_values(backend):
    batches = fastnlp.bucket_batches([5, 1, 6, 2, 9], batch_size=2, shuffle=False, pad_to_multiple=4, backend=backend)
    assert contents(batches) == [[1, 3], [0, 2], [4]]
    assert batches.batch_ptr.tolist() == [0, 2, 4, 5]
    assert batches.padded_lengths.tolist() == [4, 8, 12]
    assert batches.batch_tokens.tolist() == [3, 11, 9]
    assert (batches.real_tokens, batches.padded_tokens, batches.n_dropped) == (23, 36, 0)
    assert batches.efficiency == 23 / 36


def test_without_shuffle_is_a_stable_sort(lengths, backend):
    batches = fastnlp.bucket_batches(lengths, batch_size=64, shuffle=False, backend=backend)
    assert batches.items.tolist() == np.argsort(lengths, kind="stable").tolist()
    assert np.diff(batches.batch_ptr).tolist() == [64] * 15 + [43]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("boundaries", [None, [10, 20, 40, 80], [15], [500], [], np.arange(0, 300, 7)])
@pytest.mark.parametrize("batch_size", [1, 7, 64, 1003, 5000])
def test_every_item_once(lengths, shuffle, drop_last, boundaries, batch_size, backend):
    batches = fastnlp.bucket_batches(
        lengths,
        batch_size=batch_size,
        boundaries=boundaries,
        shuffle=shuffle,
        drop_last=drop_last,
        pad_to_multiple=8,
        backend=backend,
    )
    assert_sound(batches, lengths, batch_size, pad_to_multiple=8)
    bounds = [] if boundaries is None else boundaries
    groups = np.bincount(np.searchsorted(bounds, lengths))
    assert batches.n_dropped == (int((groups % batch_size).sum()) if drop_last else 0)
    if drop_last:
        assert (np.diff(batches.batch_ptr) == batch_size).all()


def test_shuffled_batches_are_stretches_of_the_sorted_lengths(lengths, backend):
    batches = fastnlp.bucket_batches(lengths, batch_size=64, backend=backend)
    in_order = sorted((lengths[batch].tolist() for batch in batches), key=lambda batch: (batch[0], batch[-1]))
    assert [n for batch in in_order for n in batch] == sorted(lengths.tolist())
    assert batches.padded_lengths.tolist() != sorted(batches.padded_lengths.tolist())
    sorted_by_hand = fastnlp.bucket_batches(lengths, batch_size=64, shuffle=False, backend=backend)
    assert batches.padded_tokens == sorted_by_hand.padded_tokens
    random = np.random.default_rng(0).permutation(lengths)[: 15 * 64].reshape(15, 64)
    assert random.sum() / (random.max(axis=1).sum() * 64) < 0.4 < 0.7 < batches.efficiency


def test_buckets_hold_up_to_their_bound_and_mix_inside(rng, backend):
    lengths = rng.permutation(np.repeat([1, 10, 11, 20, 21, 99], 200))
    batches = fastnlp.bucket_batches(lengths, batch_size=50, boundaries=[10, 20], backend=backend)
    seen = {tuple(np.unique(lengths[batch]).tolist()) for batch in batches}
    assert seen == {(1, 10), (11, 20), (21, 99)}
    mixed = [lengths[batch].tolist() for batch in batches]
    assert all(batch not in (sorted(batch), sorted(batch, reverse=True)) for batch in mixed)


def test_seed_and_epoch_decide_the_batches(lengths, backend):
    def batches(**options):
        return contents(fastnlp.bucket_batches(lengths, batch_size=16, backend=backend, **options))

    assert batches() == batches(seed=0, epoch=0)
    drawn = [batches(seed=seed, epoch=epoch) for seed in (0, 1, 2**70) for epoch in (0, 1, 2)]
    assert all(a != b for i, a in enumerate(drawn) for b in drawn[:i])
    assert batches(shuffle=False, seed=1) == batches(shuffle=False, seed=2, epoch=3)


def test_equal_lengths_get_other_neighbours_each_epoch(backend):
    first, second = (fastnlp.bucket_batches([7] * 400, batch_size=4, epoch=epoch, backend=backend) for epoch in (0, 1))
    assert_sound(first, [7] * 400, 4)
    assert len({frozenset(b) for b in contents(first)} & {frozenset(b) for b in contents(second)}) < 5


def test_drop_last_does_not_always_drop_the_longest(backend):
    lengths = np.arange(1, 104)
    dropped = set()
    for epoch in range(30):
        batches = fastnlp.bucket_batches(lengths, batch_size=10, drop_last=True, epoch=epoch, backend=backend)
        assert batches.n_dropped == 3
        dropped |= set(range(103)) - set(batches.items.tolist())
    assert len(dropped) > 40
    last = fastnlp.bucket_batches([1, 9, 5], batch_size=2, drop_last=True, shuffle=False, backend=backend)
    assert contents(last) == [[0, 1]]


@pytest.mark.parametrize("options", [{}, {"drop_last": True}, {"boundaries": [3]}, {"shuffle": False}])
def test_nothing_and_little(options, backend):
    batches = fastnlp.bucket_batches([], batch_size=4, backend=backend, **options)
    assert (len(batches), contents(batches), batches.batch_ptr.tolist(), batches.efficiency) == (0, [], [0], 1.0)
    assert "batches" in batches.report()
    one = fastnlp.bucket_batches([5], batch_size=1, backend=backend, **options)
    assert (contents(one), one.padded_lengths.tolist()) == ([[0]], [5])
    empties = fastnlp.bucket_batches([0, 0], batch_size=2, pad_to_multiple=8, backend=backend, **options)
    assert (empties.padded_lengths.tolist(), empties.efficiency) == ([0], 1.0)


def test_few_items_of_huge_lengths(backend):
    lengths = [2**31 - 1, 3, 2**31 - 2, 4]
    batches = fastnlp.bucket_batches(lengths, batch_size=2, shuffle=False, pad_to_multiple=2, backend=backend)
    assert contents(batches) == [[1, 3], [2, 0]]
    assert batches.padded_lengths.tolist() == [4, 2**31]
    assert batches.real_tokens == sum(lengths)
    inside = fastnlp.bucket_batches(lengths, batch_size=4, boundaries=[4, 2**40], shuffle=False, backend=backend)
    assert contents(inside) == [[1, 3], [0, 2]]


def test_any_integer_dtype_stride_and_flag(lengths, backend):
    wanted = contents(fastnlp.bucket_batches(lengths, batch_size=32, backend=backend))
    before = lengths.copy()
    lengths.flags.writeable = False
    spread = np.repeat(lengths.astype(">i8"), 2)[::2]
    for given in (lengths, spread, lengths.astype(np.uint8), lengths[::-1][::-1], lengths.tolist()):
        assert contents(fastnlp.bucket_batches(given, batch_size=32, backend=backend)) == wanted
    assert np.array_equal(lengths, before)


@pytest.mark.parametrize("boundaries", [None, [50, 100, 1000]])
@pytest.mark.parametrize("drop_last", [False, True])
def test_backends_and_threads_give_the_same_bits(boundaries, drop_last, rng):
    pytest.importorskip("numba")
    lengths = np.clip(rng.lognormal(np.log(200), 1, 400_001), 0, 4000).astype(np.int32)
    options = {"batch_size": 300, "boundaries": boundaries, "drop_last": drop_last, "seed": 3, "epoch": 2}
    wanted = fastnlp.bucket_batches(lengths, backend="reference", **options)
    before = fastnlp.get_num_threads()
    try:
        for threads in (1, 2, 3, 8):
            fastnlp.set_num_threads(threads)
            got = fastnlp.bucket_batches(lengths, backend="cpu", **options)
            for name in ("batch_ptr", "items", "padded_lengths", "batch_tokens"):
                assert getattr(got, name).dtype == np.int64
                assert np.array_equal(getattr(got, name), getattr(wanted, name))
    finally:
        fastnlp.set_num_threads(before)


def test_kernel_fills_what_it_says(lengths, backend):
    kernels = importlib.import_module(f"fastnlp.kernels.{backend}.bucket_batches")
    visit = np.arange(lengths.size)[::-1].copy()
    items, longest, tokens = (np.full(size, -7, np.int64) for size in (30, 3, 3))
    begin, batch_ptr = np.array([900, 0, 10]), np.array([0, 10, 20, 30])
    kernels.collect(lengths, visit, 201, lengths, begin, batch_ptr, items, longest, tokens)
    order = visit[np.argsort(lengths[visit], kind="stable")]
    assert items.tolist() == [*order[900:910], *order[0:10], *order[10:20]]
    assert longest.tolist() == [lengths[items[i : i + 10]].max() for i in (0, 10, 20)]
    assert tokens.tolist() == [lengths[items[i : i + 10]].sum() for i in (0, 10, 20)]


def test_result_is_an_immutable_sequence(backend):
    batches = fastnlp.bucket_batches([5, 1, 6, 2], batch_size=2, shuffle=False, backend=backend)
    assert (len(batches), batches[-1].tolist()) == (2, [0, 2])
    with pytest.raises(IndexError, match="out of range for 2 batches"):
        batches[2]
    for same in (batches, pickle.loads(pickle.dumps(batches))):
        for array in (same.batch_ptr, same.items, same.padded_lengths, same.batch_tokens, same[0]):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1
    assert repr(batches) == "<Batches: 2 batches of 4 items, 87.500% real tokens>"
    lines = dict(line.rsplit(maxsplit=1) for line in batches.report().splitlines())
    assert lines["tokens with padding"] == "16"
    assert lines["efficiency"] == "87.500%"


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([1.0, 2.0], TypeError, "lengths must be integers, got float64"),
        ([True], TypeError, "lengths must be integers, got bool"),
        ([3, -1], ValueError, "lengths holds -1 at index 1"),
        ([3, 2**31], ValueError, "lengths holds 2147483648 at index 1"),
        ([[1, 2]], ValueError, "lengths must have one axis"),
    ],
)
def test_bad_lengths(lengths, error, message, backend):
    with pytest.raises(error, match=message):
        fastnlp.bucket_batches(lengths, batch_size=2, backend=backend)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": None}, ValueError, "batch_size is missing"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"batch_size": -2}, ValueError, "batch_size must be at least 1, got -2"),
        ({"batch_size": 2.0}, TypeError, "batch_size must be an integer, got 2.0"),
        ({"batch_size": True}, TypeError, "batch_size must be an integer"),
        ({"pad_to_multiple": 0}, ValueError, "pad_to_multiple must be at least 1"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"seed": None}, TypeError, "seed must be an integer"),
        ({"epoch": -1}, ValueError, "epoch must be at least 0"),
        ({"shuffle": 1}, TypeError, "shuffle must be True or False, got 1"),
        ({"drop_last": "no"}, TypeError, "drop_last must be True or False"),
        ({"boundaries": [5, 5]}, ValueError, "boundaries must increase, got 5 before 5"),
        ({"boundaries": [1, 9, 5]}, ValueError, "boundaries must increase, got 9 before 5"),
        ({"boundaries": [-1, 5]}, ValueError, "boundaries must not be negative, got -1"),
        ({"boundaries": [1.5]}, TypeError, "boundaries must be integers"),
        ({"boundaries": 5}, ValueError, "boundaries must have one axis"),
        ({"backend": "gpu"}, ValueError, "backend must be one of"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        fastnlp.bucket_batches([1, 2], **{"batch_size": 2, **options})
