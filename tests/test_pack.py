"""`pack`: against first-fit-decreasing item by item, brute force, and the ways in which other packers lose data."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import lzma
import pickle

import numpy as np
import pytest

import fastnlp


def first_fit_decreasing(lengths, capacity, max_per_bin=None):
    """The algorithm as textbooks have it: items from long to short, each into the first row with room."""
    rows, room = [], []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        for row in range(len(rows) + 1):
            if row == len(rows):
                rows.append([])
                room.append(capacity)
            if lengths[i] <= room[row] and (max_per_bin is None or len(rows[row]) < max_per_bin):
                rows[row].append(i)
                room[row] -= lengths[i]
                break
    return rows


def best_fit_decreasing(lengths, capacity, max_per_bin=None):
    """Items from long to short, each into the row with the least room that has room, the first of equals."""
    rows, room = [], []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        open_rows = [r for r in range(len(rows)) if max_per_bin is None or len(rows[r]) < max_per_bin]
        fitting = [(room[r], r) for r in open_rows if lengths[i] <= room[r]]
        row = min(fitting)[1] if fitting else len(rows)
        if row == len(rows):
            rows.append([])
            room.append(capacity)
        rows[row].append(i)
        room[row] -= lengths[i]
    return rows


def next_fit(lengths, capacity, max_per_bin=None):
    """Items in their order, each into the last row or else into a new one."""
    rows = []
    for i, length in enumerate(lengths):
        fits = rows and sum(lengths[j] for j in rows[-1]) + length <= capacity
        if not fits or (max_per_bin is not None and len(rows[-1]) == max_per_bin):
            rows.append([])
        rows[-1].append(i)
    return rows


ITEM_BY_ITEM = {
    "first_fit_decreasing": first_fit_decreasing,
    "best_fit_decreasing": best_fit_decreasing,
    "next_fit": next_fit,
}


def fewest_rows(lengths, capacity):
    """The optimum by trying every row for every item."""
    best = len(lengths)

    def place(k, room):
        nonlocal best
        if len(room) >= best:
            return
        if k == len(lengths):
            best = len(room)
            return
        for i in range(len(room)):
            if lengths[k] <= room[i]:
                place(k + 1, [*room[:i], room[i] - lengths[k], *room[i + 1 :]])
        place(k + 1, [*room, capacity - lengths[k]])

    lengths = sorted(lengths, reverse=True)
    place(0, [])
    return best


def rows_of(packing):
    return [row.tolist() for row in packing]


def assert_sound(packing, lengths, *, dropped=()):
    """Every item in exactly one row unless dropped, no row above its capacity, and figures that agree with the rows."""
    multiple = packing.item_multiple
    limit = packing.capacity // multiple * multiple
    lengths = np.minimum(np.asarray(lengths, dtype=np.int64), limit)
    assert sorted([*packing.items.tolist(), *dropped]) == list(range(lengths.size))
    assert packing.lengths.tolist() == lengths[packing.items].tolist()
    assert packing.starts is None
    tokens = [int(lengths[row].sum()) for row in packing]
    assert packing.row_tokens.tolist() == tokens
    assert packing.row_squares.tolist() == [int((lengths[row] ** 2).sum()) for row in packing]
    rounded = -(-lengths // multiple) * multiple
    assert max((int(rounded[row].sum()) for row in packing), default=0) <= packing.capacity
    assert all(row.size for row in packing)
    assert packing.lower_bound <= len(packing)
    if tokens:
        assert packing.efficiency == sum(tokens) / (len(tokens) * packing.capacity)


def assert_same(a, b):
    """Equal in every field, dtypes included."""
    for field in dataclasses.fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        assert type(x) is type(y), field.name
        assert np.array_equal(x, y), field.name
        assert getattr(x, "dtype", None) == getattr(y, "dtype", None), field.name


LENGTHS = {
    "uniform": lambda rng, n, c: rng.integers(0, c + 1, n),
    "short": lambda rng, n, c: rng.integers(0, max(2, c // 8), n),
    "around a third": lambda rng, n, c: np.clip(rng.normal(0.34 * c, 0.05 * c + 1, n), 0, c).astype(np.int64),
    "long tail": lambda rng, n, c: np.clip(rng.lognormal(np.log(c / 10 + 1), 1, n), 1, c).astype(np.int64),
    "full rows": lambda rng, n, c: np.where(rng.random(n) < 0.5, c, rng.integers(1, c + 1, n)),
}


@pytest.mark.parametrize("algorithm", ITEM_BY_ITEM)
@pytest.mark.parametrize("kind", LENGTHS)
@pytest.mark.parametrize("capacity", [1, 7, 64, 65, 257, 1000])  # 2**k + 1: a packer over a tree once packed nothing
def test_rows_are_those_of_the_item_by_item_algorithm(algorithm, kind, capacity, backend, rng):
    for n in (1, 2, 13, 250):
        lengths = LENGTHS[kind](rng, n, capacity)
        packing = fastnlp.pack(lengths, capacity, algorithm=algorithm, backend=backend)
        assert rows_of(packing) == ITEM_BY_ITEM[algorithm](lengths.tolist(), capacity)
        assert_sound(packing, lengths)


@pytest.mark.parametrize("algorithm", ITEM_BY_ITEM)
@pytest.mark.parametrize("max_per_bin", [1, 2, 5, 10**6])
def test_max_per_bin(algorithm, max_per_bin, backend, rng):
    lengths = rng.integers(0, 40, 300)
    packing = fastnlp.pack(lengths, 100, algorithm=algorithm, max_per_bin=max_per_bin, backend=backend)
    assert rows_of(packing) == ITEM_BY_ITEM[algorithm](lengths.tolist(), 100, max_per_bin)
    assert_sound(packing, lengths)
    assert packing.lower_bound >= -(-300 // max_per_bin)


def test_best_fit_with_many_groups_of_rows(backend, rng):
    """Groups of like rows part again and again: few items of each of many lengths, rows of up to thirty."""
    lengths = np.repeat(np.arange(1, 90), rng.integers(1, 12, 89))
    for capacity in (100, 129, 500):
        packing = fastnlp.pack(lengths, capacity, algorithm="best_fit_decreasing", backend=backend)
        assert rows_of(packing) == best_fit_decreasing(lengths.tolist(), capacity)


@pytest.mark.parametrize("max_per_bin", [None, 1, 2, 3, 7])
def test_optimal(max_per_bin, backend, rng):
    """No more rows than first-fit-decreasing, no fewer than proven, and items of length 0 have their places."""
    better = 0
    for lengths, capacity in (
        (rng.integers(0, 12, 300), 30),
        (rng.normal(34, 3, 500).round().astype(int), 100),
        (np.zeros(5, int), 4),
        (np.array([0, 0, 9, 0]), 9),
        (np.array([], int), 9),
    ):
        options = {"max_per_bin": max_per_bin, "backend": backend}
        packing = fastnlp.pack(lengths, capacity, algorithm="optimal", **options)
        assert_sound(packing, lengths)
        assert max_per_bin is None or max(np.diff(packing.row_ptr), default=0) <= max_per_bin
        plain = fastnlp.pack(lengths, capacity, **options)
        assert plain.lower_bound <= packing.lower_bound <= len(packing) <= len(plain)
        better += len(packing) < len(plain)
    assert better or max_per_bin in (1, 2, 3)


@pytest.mark.parametrize("algorithm", [*ITEM_BY_ITEM, "optimal"])
@pytest.mark.parametrize("multiple", [1, 2, 8, 30])
def test_item_multiple(algorithm, multiple, backend, rng):
    """The rows are those of the rounded lengths; the figures are those of the tokens."""
    lengths = rng.integers(0, 61, 200)
    packing = fastnlp.pack(
        lengths, 65, algorithm=algorithm, item_multiple=multiple, overlong="truncate", backend=backend
    )
    assert_sound(packing, lengths)
    limit = 65 // multiple * multiple
    rounded = -(-np.minimum(lengths, limit) // multiple)
    assert packing.n_truncated == np.count_nonzero(lengths > limit)
    if algorithm in ITEM_BY_ITEM:
        assert rows_of(packing) == ITEM_BY_ITEM[algorithm](rounded.tolist(), 65 // multiple)
    assert packing.lower_bound == fastnlp.pack(rounded, 65 // multiple, algorithm=algorithm).lower_bound
    whole = packing[:]
    assert whole.row_squares.tolist() == packing.row_squares.tolist()


def pieces_of(packing):
    """(item, first token, tokens) of what was placed, sorted."""
    starts = np.zeros_like(packing.items) if packing.starts is None else packing.starts
    return sorted(zip(packing.items.tolist(), starts.tolist(), packing.lengths.tolist(), strict=True))


@pytest.mark.parametrize("algorithm", [*ITEM_BY_ITEM, "optimal"])
@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize(("capacity", "multiple"), [(64, 1), (65, 8), (1, 1), (700, 1)])
def test_split_places_every_token_once(algorithm, seed, capacity, multiple, backend, rng):
    lengths = np.where(rng.random(300) < 0.9, rng.integers(0, 50, 300), rng.integers(0, 700, 300))
    lengths[:3] = 128, 64, 640  # multiples of the capacity leave no rest
    options = {"algorithm": algorithm, "item_multiple": multiple, "seed": seed, "backend": backend}
    packing = fastnlp.pack(lengths, capacity, overlong="split", **options)
    limit = capacity // multiple * multiple
    wanted = [
        (i, start, min(limit, length - start))
        for i, length in enumerate(lengths.tolist())
        for start in range(0, max(1, length), limit)
    ]
    assert pieces_of(packing) == wanted
    assert packing.n_split == np.count_nonzero(lengths > limit)
    assert (packing.starts is None) == (packing.n_split == 0)
    assert packing.row_tokens.sum() == lengths.sum()
    assert packing.row_tokens.tolist() == np.add.reduceat(packing.lengths, packing.row_ptr[:-1]).tolist()
    rounded = -(-packing.lengths // multiple) * multiple
    assert np.add.reduceat(rounded, packing.row_ptr[:-1]).max() <= capacity
    if algorithm == "next_fit":  # the pieces of an item follow each other
        placed = list(zip(packing.items.tolist(), pieces_starts(packing), strict=True))
        first = {item: at for at, (item, start) in enumerate(placed) if start == 0}
        assert placed == sorted(placed, key=lambda piece: (first[piece[0]], piece[1]))


def pieces_starts(packing):
    return [0] * packing.items.size if packing.starts is None else packing.starts.tolist()


def test_pieces_in_slices_shards_and_files(tmp_path, rng):
    lengths = rng.integers(0, 400, 200)
    packing = fastnlp.pack(lengths, 100, overlong="split", seed=1)
    packing.save(tmp_path / "packing.npz")
    loaded = fastnlp.Packing.load(tmp_path / "packing.npz")
    assert_same(packing, loaded)
    parts = [packing.shard(rank, 3, balance="tokens") for rank in range(3)]
    assert len({len(part) for part in parts}) == 1
    for some in (parts, [packing[:10], packing[10:]]):
        assert sorted(piece for part in some for piece in pieces_of(part)) == pieces_of(packing)
    head = packing[:10]
    assert head.starts.tolist() == packing.starts[: packing.row_ptr[10]].tolist()
    assert head.row_tokens.tolist() == packing.row_tokens[:10].tolist()
    assert (head.capacity, head.n_split, head.seed) == (100, packing.n_split, 1)


def test_thousands_of_overlong_items(backend, rng):
    lengths = rng.integers(90, 5000, 4000)
    for overlong in ("truncate", "split", "drop"):
        packing = fastnlp.pack(lengths, 129, overlong=overlong, backend=backend)
        counted = (packing.n_truncated, packing.n_split, packing.n_dropped)
        longer = np.count_nonzero(lengths > 129)
        assert counted == tuple(longer if overlong == kind else 0 for kind in ("truncate", "split", "drop"))
    with pytest.raises(ValueError, match=rf"{longer} of 4000 lengths exceed the capacity of 129"):
        fastnlp.pack(lengths, 129, backend=backend)
    with pytest.raises(ValueError, match="exceed the capacity of 129 in multiples of 8"):
        fastnlp.pack(lengths, 129, item_multiple=8, backend=backend)


@pytest.mark.parametrize("algorithm", ["first_fit_decreasing", "best_fit_decreasing", "optimal"])
def test_a_shuffle_swaps_equal_lengths_and_rows(algorithm, backend, rng):
    lengths = rng.integers(0, 60, 2000)
    plain = fastnlp.pack(lengths, 128, algorithm=algorithm, backend=backend)
    shuffled = fastnlp.pack(lengths, 128, algorithm=algorithm, seed=3, backend=backend)
    assert_sound(shuffled, lengths)
    assert sorted(lengths[row].tolist() for row in shuffled) == sorted(lengths[row].tolist() for row in plain)
    assert [lengths[row].tolist() for row in shuffled] != [lengths[row].tolist() for row in plain]
    assert {frozenset(row) for row in rows_of(shuffled)} != {frozenset(row) for row in rows_of(plain)}
    assert (shuffled.seed, shuffled.epoch, plain.seed) == (3, 0, None)
    assert shuffled.lower_bound == plain.lower_bound
    others = [
        fastnlp.pack(lengths, 128, algorithm=algorithm, backend=backend, **other)
        for other in ({"seed": 4}, {"seed": 3, "epoch": 1}, {"seed": 2**70})
    ]
    assert len({tuple(packing.items.tolist()) for packing in [shuffled, *others]}) == 4
    assert_same(shuffled, fastnlp.pack(lengths, 128, algorithm=algorithm, seed=3, epoch=0, backend=backend))


def test_next_fit_packs_shuffled_items_in_their_order(backend, rng):
    lengths = rng.integers(0, 60, 500)
    packing = fastnlp.pack(lengths, 128, algorithm="next_fit", seed=7, epoch=2, backend=backend)
    assert_sound(packing, lengths)
    drawn = packing.items
    assert rows_of(packing) == [drawn[row].tolist() for row in next_fit(lengths[drawn].tolist(), 128)]
    assert drawn.tolist() != fastnlp.pack(lengths, 128, algorithm="next_fit", seed=7, backend=backend).items.tolist()


def test_hand_values(backend):
    packing = fastnlp.pack([5, 3, 8, 2], 10, backend=backend)
    assert rows_of(packing) == [[2, 3], [0, 1]]
    assert packing.row_ptr.tolist() == [0, 2, 4]
    assert packing.row_tokens.tolist() == [10, 8]
    assert packing.efficiency == 0.9
    assert (packing.capacity, packing.lower_bound, packing.n_truncated, packing.n_dropped) == (10, 2, 0, 0)


def test_optimum_lies_between_the_bound_and_the_rows(rng):
    gaps = 0
    for _ in range(150):
        capacity = int(rng.integers(4, 30))
        lengths = rng.integers(1, capacity + 1, rng.integers(1, 9))
        packing = fastnlp.pack(lengths, capacity, backend="reference")
        optimum = fewest_rows(lengths.tolist(), capacity)
        assert packing.lower_bound <= optimum <= len(packing)
        gaps += packing.lower_bound > -(-int(lengths.sum()) // capacity)
    assert gaps > 10  # the bound is more than the sum of lengths


def test_lower_bound_of_items_above_half():
    assert fastnlp.pack([6, 6, 6], 10).lower_bound == 3
    assert fastnlp.pack([7, 7, 4, 4], 10).lower_bound == 3  # L2 with threshold 4; the sum alone says 3 as well
    assert fastnlp.pack([6, 6, 5, 5, 5], 10).lower_bound == 4  # two rows of 6 take no 5
    assert fastnlp.pack([1] * 10, 10, max_per_bin=3).lower_bound == 4


def test_equal_lengths_in_index_order(backend):
    assert rows_of(fastnlp.pack([4] * 7, 12, backend=backend)) == [[0, 1, 2], [3, 4, 5], [6]]


def test_empty_sequences_take_no_room_and_are_not_lost(backend):
    assert rows_of(fastnlp.pack([0, 3, 0, 3], 3, backend=backend)) == [[1, 0, 2], [3]]
    assert rows_of(fastnlp.pack([0, 0, 0], 3, max_per_bin=2, backend=backend)) == [[0, 1], [2]]
    only_empty = fastnlp.pack([0, 0], 3, backend=backend)
    assert (rows_of(only_empty), only_empty.lower_bound, only_empty.efficiency) == ([[0, 1]], 1, 0.0)


@pytest.mark.parametrize("nothing", [[], np.empty(0, np.int32), np.empty(0)])
def test_no_items_give_no_rows(nothing, backend):
    packing = fastnlp.pack(nothing, 8, backend=backend)
    assert (len(packing), rows_of(packing), packing.row_ptr.tolist(), packing.lower_bound) == (0, [], [0], 0)
    assert packing.efficiency == 1.0
    assert "rows" in packing.report()


@pytest.mark.parametrize("n", [1, 12, 1000])
def test_one_overlong_item_never_loses_the_others(n, backend, rng):
    lengths = rng.integers(1, 100, n)
    lengths[n // 2] = 10**6
    with pytest.raises(
        ValueError,
        match=rf"1 of {n} .* capacity of 100, the first at index {n // 2} .*overlong='truncate', 'split' or 'drop'",
    ):
        fastnlp.pack(lengths, 100, backend=backend)
    cut = fastnlp.pack(lengths, 100, overlong="truncate", backend=backend)
    assert_sound(cut, lengths)
    assert (cut.n_truncated, cut.n_dropped) == (1, 0)
    assert cut[0].tolist() == [n // 2]
    kept = fastnlp.pack(lengths, 100, overlong="drop", backend=backend)
    assert_sound(kept, lengths, dropped=[n // 2])
    assert (kept.n_truncated, kept.n_dropped) == (0, 1)


def test_all_items_overlong(backend):
    dropped = fastnlp.pack([9, 9], 8, overlong="drop", backend=backend)
    assert (len(dropped), dropped.n_dropped, dropped.lower_bound) == (0, 2, 0)
    assert len(fastnlp.pack([9, 9], 8, overlong="truncate", backend=backend)) == 2


def test_capacity_far_above_all_lengths(backend):
    packing = fastnlp.pack([3] * 100, 2**31 - 1, backend=backend)
    assert (len(packing), packing.lower_bound, packing[0].size) == (1, 1, 100)


def test_few_items_of_huge_lengths(backend):
    lengths = np.array([2**31 - 1, 5, 2**30, 2**30, 2**30 - 1, 0])
    packing = fastnlp.pack(lengths, 2**31 - 1, backend=backend)
    assert rows_of(packing) == first_fit_decreasing(lengths.tolist(), 2**31 - 1)
    assert_sound(packing, lengths)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64, ">i4"])
def test_any_integer_dtype_stride_and_flag(dtype, backend, rng):
    lengths = rng.integers(0, 100, 500)
    wanted = rows_of(fastnlp.pack(lengths, 128, backend=backend))
    given = np.repeat(lengths.astype(dtype), 3)[::3]
    given.flags.writeable = False
    assert rows_of(fastnlp.pack(given, 128, backend=backend)) == wanted
    assert rows_of(fastnlp.pack(given[::-1][::-1], 128, backend=backend)) == wanted
    assert rows_of(fastnlp.pack(lengths.tolist(), 128, backend=backend)) == wanted


@pytest.mark.parametrize("kind", ["torch", "pyarrow", "chunks"])
def test_lengths_of_other_libraries(kind, backend, rng):
    library = pytest.importorskip(kind.replace("chunks", "pyarrow"), reason=f"{kind} is not installed")
    lengths = rng.integers(0, 100, 500)
    make = {
        "torch": lambda: library.tensor(lengths.astype(np.int32)),
        "pyarrow": lambda: library.array(np.append(7, lengths))[1:],
        "chunks": lambda: library.chunked_array([lengths[:100], lengths[100:100], lengths[100:]]),
    }
    given = make[kind]()
    assert_same(fastnlp.pack(given, 128, backend=backend), fastnlp.pack(lengths, 128, backend=backend))


@pytest.mark.parametrize("algorithm", ["first_fit_decreasing", "next_fit"])
def test_the_result_shares_no_memory_with_the_lengths(algorithm, backend):
    lengths = np.array([3, 1, 2], np.int32)
    packing = fastnlp.pack(lengths, 4, algorithm=algorithm, backend=backend)
    lengths[:] = 9
    assert sorted(packing.lengths.tolist()) == [1, 2, 3]


def test_a_slice_packs_its_own_items(backend, rng):
    lengths = rng.integers(1, 50, 300)
    packing = fastnlp.pack(lengths[100:200], 64, backend=backend)
    assert_sound(packing, lengths[100:200])
    assert rows_of(packing) == rows_of(fastnlp.pack(lengths[100:200].copy(), 64, backend=backend))


def test_order_of_items_does_not_change_the_lengths_of_rows(backend, rng):
    lengths = rng.integers(0, 90, 700)
    shuffled = rng.permutation(lengths)
    a, b = fastnlp.pack(lengths, 128, backend=backend), fastnlp.pack(shuffled, 128, backend=backend)
    assert [lengths[row].tolist() for row in a] == [shuffled[row].tolist() for row in b]
    assert [row for row in rows_of(a) if sorted(lengths[row])[::-1] != lengths[row].tolist()] == []


def test_input_is_not_written_to(backend, rng):
    lengths = rng.integers(1, 300, 200).astype(np.int32)
    before = lengths.copy()
    fastnlp.pack(lengths, 100, overlong="truncate", backend=backend)
    assert np.array_equal(lengths, before)


@pytest.mark.parametrize("capacity", [129, 2048, 100_000])
@pytest.mark.parametrize(
    "options",
    [
        {"overlong": "drop"},
        {"overlong": "split", "seed": 1},
        {"overlong": "truncate", "algorithm": "best_fit_decreasing", "item_multiple": 8},
        {"overlong": "truncate", "algorithm": "next_fit", "seed": 2},
    ],
)
def test_backends_and_threads_give_the_same_bits(capacity, options, rng):
    pytest.importorskip("numba", reason="numba is not installed")
    lengths = np.clip(rng.lognormal(np.log(200), 1, 400_000), 0, 4000).astype(np.int32)
    options = {"capacity": capacity, "max_per_bin": 50, **options}
    wanted = fastnlp.pack(lengths, backend="reference", **options)
    before = fastnlp.get_num_threads()
    try:
        for threads in (1, 2, 3, 8):
            fastnlp.set_num_threads(threads)
            got = fastnlp.pack(lengths, backend="cpu", **options)
            assert_same(got, wanted)
    finally:
        fastnlp.set_num_threads(before)


def test_kernels_fill_what_they_say(backend, rng):
    kernels = importlib.import_module(f"fastnlp.kernels.{backend}.pack")
    lengths = rng.integers(1, 30, 200).astype(np.int32)
    counts = np.bincount(lengths)
    sizes = np.flatnonzero(counts)
    repeats, tokens, entry_ptr, start, copies, used = (np.full(201, -7, np.int64) for _ in range(6))
    kernels.first_fit_decreasing(sizes, counts[sizes], 64, 200, repeats, tokens, entry_ptr, start, copies, used[:2])
    patterns, entries = used[:2]
    assert patterns <= 2 * sizes.size
    assert entry_ptr[patterns] == entries
    for array, filled in ((repeats, patterns), (tokens, patterns), (entry_ptr, patterns + 1), (start, entries)):
        assert (array[:filled] >= 0).all()
        assert (array[filled:] == -7).all()
    width = np.add.reduceat(copies[:entries], entry_ptr[:patterns])
    row_ptr = np.append(0, np.cumsum(np.repeat(width, repeats[:patterns])))
    chunk_counts = np.full((3, counts.size), -7)
    kernels.count_keys(lengths, chunk_counts)
    assert np.array_equal(chunk_counts.sum(axis=0), counts)
    order, items = np.full((2, 200), -7)
    dealt = np.full(200, -7, np.int32)
    kernels.sort_by_key(lengths, None, chunk_counts, order)
    assert np.array_equal(order, np.argsort(lengths, kind="stable"))
    entry_sizes = lengths[order[start[:entries]]].astype(np.int64)
    plan = (repeats[:patterns], entry_ptr[: patterns + 1], start[:entries], copies[:entries])
    kernels.deal(order, *plan, entry_sizes, row_ptr[:-1], items, dealt)
    assert np.array_equal(dealt, lengths[items])
    assert sorted(items.tolist()) == list(range(200))


def test_result_is_an_immutable_sequence(backend):
    packing = fastnlp.pack([5, 3, 8, 2], 10, backend=backend)
    assert packing[-1].tolist() == packing[1].tolist() == packing[np.int64(1)].tolist()
    for wrong in (2, -3):
        with pytest.raises(IndexError, match="out of range for 2 rows"):
            packing[wrong]
    with pytest.raises(TypeError):
        packing["0"]
    with pytest.raises(AttributeError):
        packing.capacity = 3
    for same in (packing, pickle.loads(pickle.dumps(packing)), copy.deepcopy(packing)):
        assert rows_of(same) == [[2, 3], [0, 1]]
        for array in (same.row_ptr, same.items, same.row_tokens, same[0]):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1
    assert repr(packing) == "<Packing: 2 rows of 4 items, 90.000% real tokens>"
    lines = dict(line.rsplit(maxsplit=1) for line in packing.report().splitlines())
    assert lines["lower bound"] == "2"
    assert lines["efficiency"] == "90.000%"


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([1.0, 2.0], TypeError, "lengths must be integers, got float64"),
        ([1.0, float("nan")], TypeError, "lengths must be integers"),
        ([True, False], TypeError, "lengths must be integers, got bool"),
        (["a", "bc"], TypeError, "lengths must be integers"),
        (None, TypeError, "lengths must be integers"),
        (np.ma.array([1, 2], mask=[0, 1]), TypeError, "masked"),
        ([3, -1, -2], ValueError, "lengths holds -1 at index 1"),
        ([3, 2**31], ValueError, "lengths holds 2147483648 at index 1"),
        (np.array([2**64 - 1], np.uint64), ValueError, "lengths holds a value beyond int64"),
        ([[1, 2]], ValueError, "lengths must have one axis"),
        (3, ValueError, "lengths must have one axis"),
    ],
)
def test_bad_lengths(lengths, error, message, backend):
    with pytest.raises(error, match=message):
        fastnlp.pack(lengths, 8, backend=backend)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"capacity": 0}, ValueError, "capacity must be at least 1, got 0"),
        ({"capacity": -5}, ValueError, "capacity must be at least 1, got -5"),
        ({"capacity": 2**31}, ValueError, "capacity must be at most 2147483647"),
        ({"capacity": 8.0}, TypeError, "capacity must be an integer, got 8.0"),
        ({"capacity": True}, TypeError, "capacity must be an integer, got True"),
        ({"capacity": None}, TypeError, "capacity must be an integer, got None"),
        ({"max_per_bin": 0}, ValueError, "max_per_bin must be at least 1"),
        ({"max_per_bin": 1.5}, TypeError, "max_per_bin must be an integer"),
        ({"algorithm": "ffd"}, ValueError, "algorithm must be one of 'first_fit_decreasing', .*, got 'ffd'"),
        ({"overlong": "cut"}, ValueError, "overlong must be one of 'error', 'truncate', 'split', 'drop', got 'cut'"),
        ({"overlong": None}, ValueError, "overlong must be one of"),
        ({"item_multiple": 0}, ValueError, "item_multiple must be at least 1"),
        ({"item_multiple": 9}, ValueError, "item_multiple must be at most the capacity of 8, got 9"),
        ({"item_multiple": 2.0}, TypeError, "item_multiple must be an integer"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"seed": 1.5}, TypeError, "seed must be an integer"),
        ({"seed": True}, TypeError, "seed must be an integer"),
        ({"epoch": -1}, ValueError, "epoch must be at least 0"),
        ({"epoch": None}, TypeError, "epoch must be an integer"),
        ({"time_limit": 0}, ValueError, "time_limit must be a positive"),
        ({"time_limit": float("nan")}, ValueError, "time_limit must be a positive"),
        ({"time_limit": None}, TypeError, "time_limit must be a number"),
        ({"backend": "gpu"}, ValueError, "backend must be one of"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        fastnlp.pack([1, 2], **{"capacity": 8, **options})


def test_paragraphs_pack_to_the_bound(corpus_file, backend):
    with lzma.open(corpus_file("wikitext-2.txt.xz"), "rt", encoding="utf-8") as file:
        lengths = [len(line.split()) for line in file]
    assert len(lengths) > 10_000
    for capacity in (1024, 2048, 8192):
        packing = fastnlp.pack(lengths, capacity, backend=backend)
        assert_sound(packing, lengths)
        assert len(packing) == packing.lower_bound
