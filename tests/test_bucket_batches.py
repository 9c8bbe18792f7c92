"""`bucket_batches`: every item once, like lengths together, the same batches for the same seed."""

from __future__ import annotations

import importlib
import itertools
import pickle

import numpy as np
import pytest

import fastnlp


def rounded(n, multiple):
    return -(-int(n) // multiple) * multiple


def assert_sound(batches, lengths, batch_size=None, **options):
    """No item twice, batches within what was asked for, and figures that agree with the batches."""
    lengths = np.asarray(lengths, dtype=np.int64)
    items = batches.items.tolist()
    assert len(set(items)) == len(items) == lengths.size - batches.n_dropped
    assert set(items) <= set(range(lengths.size))
    assert batches.n_dropped == 0 or options.get("drop_last")
    assert np.array_equal(batches.lengths, lengths[batches.items])
    multiple, bounds = options.get("pad_to_multiple", 1), batches.boundaries
    longest = [int(lengths[batch].max()) for batch in batches]
    padded = [rounded(n, multiple) for n in longest]
    if bounds is not None:
        of = [np.unique(np.searchsorted(bounds, lengths[batch])) for batch in batches]
        assert all(buckets.size == 1 for buckets in of)
        if options.get("pad_to_boundary", isinstance(options.get("boundaries"), int)):
            padded = [rounded(bounds[bucket[0]], multiple) for bucket in of]
    assert batches.padded_lengths.tolist() == padded
    assert batches.batch_tokens.tolist() == [int(lengths[batch].sum()) for batch in batches]
    assert batches.real_tokens == int(lengths[batches.items].sum())
    places = sum(batch.size * n for batch, n in zip(batches, padded, strict=True))
    assert batches.padded_tokens == places
    assert batches.efficiency == (batches.real_tokens / places if places else 1.0)

    most = batch_size or options.get("max_sentences") or lengths.size
    assert all(1 <= batch.size <= most for batch in batches)
    if options.get("max_tokens"):
        assert all(batch.size * n <= options["max_tokens"] for batch, n in zip(batches, padded, strict=True))


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
    assert_sound(batches, lengths, batch_size, pad_to_multiple=8, drop_last=drop_last)
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


def by_hand(lengths, *, max_tokens, max_sentences, batch_multiple, pad_to_multiple, drop_last):
    """Batches within a budget, item by item, from the longest down; sets of lengths, because equal ones may swap."""
    rest, batches = sorted(lengths), []
    while rest:
        n = min(max_tokens // max(1, rounded(rest[-1], pad_to_multiple)), max_sentences)
        n -= n % batch_multiple if n >= batch_multiple else 0
        batch = rest[-n:]
        del rest[-n:]
        if len(batch) < n:
            odd = len(batch) % batch_multiple if len(batch) > batch_multiple else 0
            batches += [] if drop_last else [part for part in (batch[odd:], batch[:odd]) if part]
        else:
            batches.append(batch)
    return batches[::-1]


@pytest.mark.parametrize("batch_multiple", [1, 8])
@pytest.mark.parametrize("pad_to_multiple", [1, 16])
@pytest.mark.parametrize("max_sentences", [None, 1, 20])
@pytest.mark.parametrize("max_tokens", [208, 1000, 10**6])
def test_budgets(lengths, max_tokens, max_sentences, pad_to_multiple, batch_multiple, backend):
    for drop_last in (False, True):
        options = {
            "max_tokens": max_tokens,
            "max_sentences": max_sentences,
            "pad_to_multiple": pad_to_multiple,
            "batch_multiple": batch_multiple,
            "drop_last": drop_last,
        }
        wanted = by_hand(lengths.tolist(), **{**options, "max_sentences": max_sentences or 10**9})
        in_order = fastnlp.bucket_batches(lengths, **options, shuffle=False, backend=backend)
        assert_sound(in_order, lengths, **options)
        assert [lengths[batch].tolist() for batch in in_order] == wanted
        shuffled = fastnlp.bucket_batches(lengths, **options, backend=backend)
        assert_sound(shuffled, lengths, **options)
        assert sorted(sorted(lengths[batch].tolist()) for batch in shuffled) == sorted(wanted)


def test_hand_values_of_a_budget(backend):
    def batches(**options):
        made = fastnlp.bucket_batches([5, 1, 6, 2, 0, 3], shuffle=False, backend=backend, **options)
        return contents(made), made.padded_lengths.tolist()

    assert batches(max_tokens=12) == ([[4, 1, 3, 5], [0, 2]], [3, 6])
    assert batches(max_tokens=6) == ([[4, 1], [3, 5], [0], [2]], [1, 3, 5, 6])
    assert batches(max_tokens=16, pad_to_multiple=4) == ([[4, 1, 3, 5], [0, 2]], [4, 8])
    assert batches(max_tokens=100, max_sentences=5, batch_multiple=4) == ([[4, 1], [3, 5, 0, 2]], [1, 6])
    assert batches(max_tokens=100, batch_multiple=4) == ([[4, 1], [3, 5, 0, 2]], [1, 6])
    assert batches(max_tokens=100, batch_multiple=5) == ([[4], [1, 3, 5, 0, 2]], [0, 6])
    assert batches(batch_size=4, batch_multiple=4) == ([[4, 1, 3, 5], [0, 2]], [3, 6])
    assert batches(max_tokens=18, drop_last=True) == ([[5, 0, 2]], [6])
    empties = fastnlp.bucket_batches([0] * 5, max_tokens=2, shuffle=False, backend=backend)
    assert contents(empties) == [[0], [1, 2], [3, 4]]


def test_all_equal(backend):
    batches = fastnlp.bucket_batches([7] * 401, max_tokens=70, backend=backend)
    assert sorted(np.diff(batches.batch_ptr).tolist()) == [1] + [10] * 40
    assert_sound(batches, [7] * 401, max_tokens=70)
    static = fastnlp.bucket_batches([7] * 401, max_tokens=70, boundaries=3, drop_last=True, backend=backend)
    assert (static.boundaries.tolist(), len(static), static.n_dropped, static.efficiency) == ([7], 40, 1, 1.0)


def test_a_budget_wastes_little(rng, backend):
    lengths = np.exp(rng.normal(np.log(200), 1, 1_000_000)).clip(1, 2048).astype(np.int32)
    batches = fastnlp.bucket_batches(lengths, max_tokens=32768, backend=backend)
    assert batches.efficiency >= 0.999
    places = np.diff(batches.batch_ptr) * batches.padded_lengths
    assert places.max() <= 32768 < 1.05 * np.median(places)


@pytest.mark.parametrize("window", [1, 7, 64, 500, 1003, 10**9])
@pytest.mark.parametrize("options", [{"batch_size": 16}, {"max_tokens": 600}, {"max_tokens": 600, "batch_multiple": 4}])
def test_window(lengths, window, options, backend):
    in_order = fastnlp.bucket_batches(lengths, **options, window=window, shuffle=False, backend=backend)
    assert_sound(in_order, lengths, **options)
    width = rounded(window, options.get("batch_size", 1))
    begin = 0
    for first in range(0, lengths.size, width):
        alone = fastnlp.bucket_batches(lengths[first : first + width], **options, shuffle=False, backend=backend)
        same = in_order[begin : begin + len(alone)]
        assert contents(same) == [(batch + first).tolist() for batch in alone]
        begin += len(alone)
    assert begin == len(in_order)
    for drop_last in (False, True):
        shuffled = fastnlp.bucket_batches(lengths, **options, window=window, drop_last=drop_last, backend=backend)
        assert_sound(shuffled, lengths, **options, drop_last=drop_last)
        if drop_last and "batch_size" in options:
            assert shuffled.n_dropped == lengths.size % options["batch_size"]


def test_window_trades_padding_for_randomness(lengths, backend):
    efficiency = [
        fastnlp.bucket_batches(lengths, batch_size=16, window=window, backend=backend).efficiency
        for window in (16, 64, 256, None)
    ]
    assert efficiency == sorted(efficiency)
    assert efficiency[0] < 0.6 < 0.9 < efficiency[-1]
    lengths = np.arange(1, 1025)  # all different: a full sort gives the same batches each epoch
    repeated = {}
    for window in (64, None):
        seen = [
            {frozenset(b.tolist()) for b in fastnlp.bucket_batches(lengths, batch_size=8, window=window, epoch=epoch)}
            for epoch in (0, 1)
        ]
        repeated[window] = len(seen[0] & seen[1])
    assert repeated == {64: 0, None: 128}


@pytest.mark.parametrize("size", [{"batch_size": 16}, {"max_tokens": 640}, {"max_tokens": 640, "max_sentences": 9}])
@pytest.mark.parametrize("boundaries", [1, 4, 1000, [10, 20, 40, 80], [30, 208]])
@pytest.mark.parametrize("pad_to_boundary", [None, False, True])
@pytest.mark.parametrize("pad_to_multiple", [1, 8])
def test_buckets(lengths, size, boundaries, pad_to_boundary, pad_to_multiple, backend):
    if pad_to_boundary and boundaries == [10, 20, 40, 80]:
        boundaries = [10, 20, 40, 80, 300]
    options = {**size, "boundaries": boundaries, "pad_to_multiple": pad_to_multiple}
    if pad_to_boundary is not None:
        options["pad_to_boundary"] = pad_to_boundary
    for drop_last in (False, True):
        batches = fastnlp.bucket_batches(lengths, **options, drop_last=drop_last, backend=backend)
        assert_sound(batches, lengths, **options, drop_last=drop_last)
        sizes, bucket = (
            np.diff(batches.batch_ptr),
            np.searchsorted(batches.boundaries, [lengths[b].max() for b in batches]),
        )
        for k in np.unique(bucket):
            of_one = np.sort(sizes[bucket == k])
            assert np.unique(of_one[1:]).size <= 1  # at most one batch of a bucket is smaller
            assert of_one[0] <= of_one[-1]
            if drop_last:
                assert of_one[0] == of_one[-1]
    if isinstance(boundaries, int):
        assert batches.boundaries.size == min(boundaries, np.unique(-(-lengths // pad_to_multiple)).size)
        assert not (batches.boundaries % pad_to_multiple).any()


def test_static_shapes_give_few_shapes(rng, backend):
    lengths = np.exp(rng.normal(np.log(200), 1, 20_000)).clip(1, 2048).astype(np.int32)
    batches = fastnlp.bucket_batches(lengths, max_tokens=16384, boundaries=8, pad_to_multiple=8, drop_last=True)
    shapes = set(zip(np.diff(batches.batch_ptr).tolist(), batches.padded_lengths.tolist(), strict=True))
    assert len(shapes) == len(batches.boundaries) == 8
    uniform = fastnlp.bucket_batches(
        lengths, batch_size=8, boundaries=np.arange(256, 2049, 256), pad_to_boundary=True, backend=backend
    )
    best = fastnlp.bucket_batches(lengths, batch_size=8, boundaries=8, backend=backend)
    assert best.efficiency > 0.78 > 0.72 > uniform.efficiency


def test_optimal_boundaries_pad_least_of_all(rng, backend):
    kernels = importlib.import_module(f"fastnlp.kernels.{backend}.bucket_batches")
    for _ in range(200):
        sizes = np.sort(rng.choice(40, rng.integers(1, 9), replace=False)).astype(np.int64)
        counts = rng.integers(1, 9, sizes.size)
        bounds = np.full(rng.integers(1, sizes.size + 1), -7)
        kernels.optimal_boundaries(sizes, counts, bounds)

        def padded(bounds, sizes=sizes, counts=counts):
            return int((counts * np.array(bounds)[np.searchsorted(bounds, sizes)]).sum())

        others = itertools.combinations(sizes[:-1].tolist(), bounds.size - 1)
        assert padded(bounds) == min(padded([*some, sizes[-1]]) for some in others)
        assert (np.diff(bounds) > 0).all()


@pytest.mark.parametrize(("bounds", "sizes"), [(8, 2048), (3, 1000), (40, 41)])
def test_optimal_boundaries_are_the_same_on_all_backends(bounds, sizes, rng):
    pytest.importorskip("numba", reason="numba is not installed")
    counts = rng.integers(1, 1000, sizes)
    found = np.full((2, bounds), -7)
    for backend, out in zip(("reference", "cpu"), found, strict=True):
        kernels = importlib.import_module(f"fastnlp.kernels.{backend}.bucket_batches")
        kernels.optimal_boundaries(np.arange(1, sizes + 1), counts, out)
    assert found[0].tolist() == found[1].tolist()


def test_more_boundaries_than_lengths_take_no_search(backend):
    batches = fastnlp.bucket_batches(np.arange(50_000), batch_size=8, boundaries=2**31 - 1, backend=backend)
    assert np.array_equal(batches.boundaries, np.arange(50_000))
    assert batches.efficiency == 1.0


@pytest.mark.parametrize("balance", [None, "tokens", "squares"])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [{"batch_size": 16}, {"max_tokens": 600}, {"batch_size": 16, "boundaries": 4}])
def test_ranks(lengths, size, world_size, balance, backend):
    for drop_last in (False, True):
        ranks = [
            fastnlp.bucket_batches(
                lengths, **size, rank=r, world_size=world_size, balance=balance, drop_last=drop_last, backend=backend
            )
            for r in range(world_size)
        ]
        assert len({len(rank) for rank in ranks}) == len({rank.n_dropped for rank in ranks}) == 1
        items = np.concatenate([rank.items for rank in ranks])
        assert items.size == np.unique(items).size == lengths.size - ranks[0].n_dropped
        assert ranks[0].n_dropped == 0 or drop_last
        steps = len(fastnlp.bucket_batches(lengths, **size, drop_last=drop_last, backend=backend)) / world_size
        assert len(ranks[0]) == int(np.floor(steps) if drop_last else np.ceil(steps))


@pytest.mark.parametrize("wrong", [{"rank": 2}, {"rank": -1}, {"world_size": 0}, {"balance": "items"}])
def test_bad_ranks(wrong):
    with pytest.raises(ValueError, match=r"must be|rank"):
        fastnlp.bucket_batches([1, 2, 3], batch_size=1, **{"rank": 0, "world_size": 2, **wrong})


def test_seed_and_epoch_decide_the_batches(lengths, backend):
    def batches(**options):
        return contents(fastnlp.bucket_batches(lengths, batch_size=16, backend=backend, **options))

    assert batches() == batches(seed=0, epoch=0)
    drawn = [batches(seed=seed, epoch=epoch) for seed in (0, 1, 2**70) for epoch in (0, 1, 2)]
    assert all(a != b for i, a in enumerate(drawn) for b in drawn[:i])
    assert batches(shuffle=False, seed=1) == batches(shuffle=False, seed=2, epoch=3)


def test_batches_are_shuffled_otherwise_than_their_items(backend):
    drawn = [fastnlp.bucket_batches([7, 7], batch_size=1, seed=seed, backend=backend).items[0] for seed in range(200)]
    assert 70 < sum(drawn) < 130  # never 1, if both shuffles were one


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
    bounds = np.array([10, 20])
    batches = fastnlp.bucket_batches(lengths, batch_size=32, boundaries=bounds, backend=backend)
    bounds[0] = 5  # the caller's, still to be written to
    assert batches.boundaries.tolist() == [10, 20]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 300},
        {"batch_size": 300, "window": 5000},
        {"batch_size": 300, "boundaries": [50, 100, 1000]},
        {"max_tokens": 16384, "batch_multiple": 4},
        {"max_tokens": 16384, "window": 5000, "pad_to_multiple": 8},
        {"max_tokens": 16384, "boundaries": 7, "max_sentences": 90},
    ],
)
def test_backends_and_threads_give_the_same_bits(options, drop_last, rng):
    pytest.importorskip("numba", reason="numba is not installed")
    lengths = np.clip(rng.lognormal(np.log(200), 1, 400_001), 0, 4000).astype(np.int32)
    options = {**options, "drop_last": drop_last, "seed": 3, "epoch": 2}
    wanted = fastnlp.bucket_batches(lengths, backend="reference", **options)
    before = fastnlp.get_num_threads()
    try:
        for threads in (1, 2, 3, 8):
            fastnlp.set_num_threads(threads)
            got = fastnlp.bucket_batches(lengths, backend="cpu", **options)
            for name in ("batch_ptr", "items", "lengths", "padded_lengths", "batch_tokens"):
                assert getattr(got, name).dtype == (np.int32 if name in ("items", "lengths") else np.int64)
                assert np.array_equal(getattr(got, name), getattr(wanted, name))
    finally:
        fastnlp.set_num_threads(before)


def test_kernels_fill_what_they_say(lengths, backend):
    kernels = importlib.import_module(f"fastnlp.kernels.{backend}.bucket_batches")
    visit = np.arange(lengths.size)[::-1].copy()
    order = visit[np.argsort(lengths[visit], kind="stable")]
    begin, batch_ptr = np.array([900, 0, 10]), np.array([0, 10, 20, 30])
    items, longest, tokens = (np.full(size, -7, np.int64) for size in (30, 3, 3))
    item_lengths = np.full(30, -7, np.int32)
    kernels.collect(order, lengths, begin, batch_ptr, items, item_lengths, longest, tokens)
    assert items.tolist() == [*order[900:910], *order[0:10], *order[10:20]]
    assert item_lengths.tolist() == lengths[items].tolist()
    assert longest.tolist() == [lengths[items[i : i + 10]].max() for i in (0, 10, 20)]
    assert tokens.tolist() == [lengths[items[i : i + 10]].sum() for i in (0, 10, 20)]

    most, ends, group_ends = np.array([9, 3, 2, 1]), np.array([4, 4, 9, 10]), np.array([2, 7, 10])
    begin, used = np.full(10, -7), np.full(1, -7)
    kernels.cut(most, ends, group_ends, begin, used)
    assert (begin[: used[0]].tolist(), begin[used[0] :].tolist()) == ([9, 7, 5, 3, 2, 0], [-7] * 4)


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


def test_report_has_a_table_of_the_buckets(backend):
    lengths = [1, 2000, 3, 1500, 9999]
    batches = fastnlp.bucket_batches(lengths, batch_size=2, boundaries=[10, 2000, 5000], shuffle=False, backend=backend)
    assert batches.report().split("\n\n")[1].splitlines() == [
        "up to  batches  items  tokens  with padding",
        "   10        1      2       4             6",
        "2,000        1      2   3,500         4,000",
        "5,000        0      0       0             0",
        "above        1      1   9,999         9,999",
    ]
    inside = fastnlp.bucket_batches(lengths[:4], batch_size=2, boundaries=2, backend=backend).report()
    assert "above" not in inside
    assert "up to" not in fastnlp.bucket_batches([], batch_size=2, boundaries=2, backend=backend).report()


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
        ({"batch_size": None, "max_sentences": 5}, ValueError, "batch_size is missing"),
        ({"max_tokens": 9}, ValueError, "pass batch_size or max_tokens, got 2 and 9"),
        ({"max_sentences": 9}, ValueError, "pass batch_size or max_sentences, got 2 and 9"),
        ({"batch_size": None, "max_tokens": 0}, ValueError, "max_tokens must be at least 1, got 0"),
        ({"batch_size": None, "max_tokens": 9.0}, TypeError, "max_tokens must be an integer"),
        ({"batch_size": None, "max_tokens": 2**63}, ValueError, "max_tokens must be below"),
        ({"batch_size": None, "max_tokens": 9, "max_sentences": 0}, ValueError, "max_sentences must be at least 1"),
        ({"batch_multiple": 0}, ValueError, "batch_multiple must be at least 1"),
        ({"batch_multiple": 4}, ValueError, "batch_size must be a multiple of batch_multiple, got 2 and 4"),
        ({"window": 0}, ValueError, "window must be at least 1"),
        ({"window": 2, "boundaries": [1]}, ValueError, "pass one of them"),
        ({"pad_to_boundary": True}, ValueError, "pad_to_boundary=True needs boundaries"),
        ({"pad_to_boundary": 1, "boundaries": [5]}, TypeError, "pad_to_boundary must be True or False"),
        (
            {"pad_to_boundary": True, "boundaries": [1]},
            ValueError,
            "index 1 has 2 tokens, more than the last .* \\(1\\)",
        ),
        ({"pad_to_boundary": True, "boundaries": [2**62]}, ValueError, "padded to must be at most"),
        ({"pad_to_boundary": True, "boundaries": []}, ValueError, "index 0 has 1 tokens, more than the last"),
        ({"boundaries": 0}, ValueError, "boundaries must be at least 1"),
        ({"boundaries": True}, TypeError, "boundaries must be an integer"),
        ({"boundaries": "8"}, TypeError, "boundaries must be an integer"),
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
        ({"boundaries": [[5]]}, ValueError, "boundaries must have one axis"),
        ({"backend": "gpu"}, ValueError, "backend must be one of"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        fastnlp.bucket_batches([1, 2], **{"batch_size": 2, **options})


def test_an_item_that_no_batch_can_hold_is_named():
    with pytest.raises(ValueError, match=r"index 2 has 9 tokens \(16 when padded\), more than max_tokens=15"):
        fastnlp.bucket_batches([3, 1, 9, 9], max_tokens=15, pad_to_multiple=8)
    with pytest.raises(ValueError, match=r"index 1 has 2147483647 tokens \(2147483648 when padded\)"):
        fastnlp.bucket_batches(np.array([3, 2**31 - 1], np.int32), max_tokens=15, pad_to_multiple=8)
    options = {"max_tokens": 15, "boundaries": [5, 16], "pad_to_boundary": True}
    with pytest.raises(ValueError, match="boundaries pad to 16 tokens, more than max_tokens=15"):
        fastnlp.bucket_batches([3, 9], **options)
    assert len(fastnlp.bucket_batches([3, 5], **options)) == 1  # the bound of an empty bucket does not matter
