"""StreamPacker: every item once, none later than max_wait, full rows; however it is cut into calls, on any backend."""

from __future__ import annotations

import itertools
import json
import pickle

import numpy as np
import pytest

import fastnlp
from fastnlp._dispatch import implementation

KINDS = {
    "lognormal": lambda rng, n, c: rng.lognormal(np.log(0.1 * c), 1, n).clip(1, c),
    "above half": lambda rng, n, c: rng.integers(c // 2 + 1, c // 2 + 2, n),
    "around half": lambda rng, n, c: rng.integers(c // 3, 2 * c // 3 + 1, n),
    "tiny": lambda rng, n, c: rng.integers(0, 2, n),
    "empty": lambda rng, n, c: np.zeros(n),
    "full": lambda rng, n, c: np.full(n, c),
    "any": lambda rng, n, c: rng.integers(0, c + 1, n),
}


def packed(lengths, capacity, cuts=(), **options):
    """Return the rows of a stream that is added in several calls, with the items added when each came out."""
    packer = fastnlp.StreamPacker(capacity, **options)
    rows = []
    for part in np.split(np.asarray(lengths, np.int64), cuts):
        rows += [(row, packer.n_added) for row in packer.add(part)]
    return packer, rows + [(row, packer.n_added) for row in packer.flush()]


def one_by_one(lengths, capacity, **options):
    packer = fastnlp.StreamPacker(capacity, **options)
    rows = [(row, packer.n_added) for length in lengths for row in packer.add(int(length))]
    return packer, rows + [(row, packer.n_added) for row in packer.flush()]


def as_lists(rows):
    return [(row.items.tolist(), None if row.starts is None else row.starts.tolist()) for row, _ in rows]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("buffer", [1, 7, 30])
@pytest.mark.parametrize("max_wait", [0, 1, 9, None])
@pytest.mark.parametrize("max_per_bin", [None, 1, 3])
def test_every_item_comes_out_once_in_rows_that_fit_and_in_time(kind, buffer, max_wait, max_per_bin, backend):
    rng = np.random.default_rng(len(kind) + buffer)
    options = {"buffer": buffer, "max_wait": max_wait, "max_per_bin": max_per_bin, "backend": backend}
    for n, capacity in itertools.product([0, 1, 40], [1, 13, 129]):
        lengths = KINDS[kind](rng, n, capacity).astype(np.int64).clip(0, capacity)
        packer, rows = one_by_one(lengths, capacity, **options)
        for row, now in rows:
            assert row.items.size
            assert (np.diff(row.items) > 0).all()
            assert lengths[row.items].sum() <= capacity
            assert row.items.size <= (max_per_bin or n)
            assert now - 1 - row.items[0] <= packer.max_wait
        assert sorted(np.concatenate([row.items for row, _ in rows]).tolist() if rows else []) == list(range(n))
        assert packer.n_held == 0
        assert (packer.n_rows, packer.n_tokens, packer.n_added) == (len(rows), lengths.sum(), n)


@pytest.mark.parametrize("overlong", ["split", "truncate", "drop"])
def test_rows_do_not_depend_on_calls_or_backend(overlong, backend, rng):
    for trial in range(25):
        capacity = int(rng.integers(3, 90))
        options = {
            "buffer": int(rng.integers(1, 20)),
            "max_wait": [None, int(rng.integers(0, 30))][trial % 2],
            "max_per_bin": [None, 4, 2][trial % 3],
            "item_multiple": [1, 2, 3][trial // 3 % 3],
            "overlong": overlong,
        }
        lengths = rng.integers(0, 2 * capacity, 60) if trial % 4 else rng.integers(0, capacity // 2 + 2, 60)
        packer, rows = packed(lengths, capacity, **options, backend="reference")
        cuts = np.sort(rng.integers(0, lengths.size + 1, 5))
        for other, same in (
            packed(lengths, capacity, **options, backend=backend),
            packed(lengths, capacity, cuts, **options, backend=backend),
            one_by_one(lengths, capacity, **options, backend=backend),
        ):
            assert as_lists(same) == as_lists(rows)
            assert other.state_dict() == packer.state_dict()


def test_kernels_fill_the_same_outputs(backend, rng):
    kernels, reference = implementation("stream_packer", backend), implementation("stream_packer", "reference")
    for trial in range(200):
        capacity, n = int(rng.integers(1, 3000 if trial % 4 else 200)), int(rng.integers(1, 60))
        sizes = rng.integers(-1, rng.integers(0, capacity + 1) + 1, n)
        n_held = int(rng.integers(0, n)) if (sizes >= 0).all() else 0
        args = n_held, capacity, *(int(x) for x in rng.integers([1, 0, 1], [12, 40, 12]))
        outputs = []
        for one in (kernels, reference):
            taken, row_ptr, used = np.full(n, -7), np.full(n + 1, -7), np.full(3, -7)
            one.complete_rows(sizes, np.arange(n), *args, taken, row_ptr, used)
            outputs.append((taken.tolist(), row_ptr.tolist(), used.tolist()))
        assert outputs[0] == outputs[1]
        assert sorted(outputs[0][0])[-np.count_nonzero(sizes >= 0) :] == np.flatnonzero(sizes >= 0).tolist()


def test_a_row_is_the_best_subset_around_the_oldest(backend, rng):
    for _ in range(60):
        capacity = int(rng.integers(5, 60))
        lengths = rng.integers(1, capacity + 1, 9)
        packer = fastnlp.StreamPacker(capacity, buffer=8, backend=backend)
        rows = packer.add(lengths)
        if lengths.sum() < capacity:
            assert not rows
            continue
        others = [c for k in range(9) for c in itertools.combinations(range(1, 9), k)]
        totals = [lengths[0] + lengths[list(c)].sum() for c in others]
        assert lengths[rows[0].items].sum() == max(total for total in totals if total <= capacity)
        assert rows[0].items[0] == 0


def test_rows_by_hand(backend):
    packer = fastnlp.StreamPacker(10, buffer=3, backend=backend)
    assert packer.add([5, 3, 8]) == []
    assert [row.items.tolist() for row in packer.add([5, 2])] == [[0, 3]]
    assert packer.n_held == 3
    assert [row.items.tolist() for row in packer.flush()] == [[1, 4], [2]]
    assert packer.efficiency == 23 / 30
    assert packer.report().splitlines()[0].split() == ["rows", "3"]
    assert packer.add([]) == []
    assert packer.flush() == []
    # empty items go along with the row that is made up around the oldest
    packer = fastnlp.StreamPacker(4, buffer=2, backend=backend)
    assert [row.items.tolist() for row in packer.add([0, 0, 2, 0, 2, 4, 0])] == [[0, 1, 2, 3, 4]]
    # held until they fill a row, though more than the buffer
    packer = fastnlp.StreamPacker(6, buffer=1, backend=backend)
    assert [len(packer.add(1)) for _ in range(7)] == [0, 0, 0, 0, 0, 1, 0]
    # the longest with the oldest, where the older ones would be too many
    packer = fastnlp.StreamPacker(9, buffer=4, max_per_bin=3, backend=backend)
    assert [row.items.tolist() for row in packer.add([2, 1, 1, 5, 4, 3, 1])] == [[0, 1, 3]]


def test_pieces_cover_every_token_of_what_is_split(backend, rng):
    lengths = rng.integers(0, 100, 200)
    packer, rows = packed(lengths, 33, buffer=10, item_multiple=4, overlong="split", backend=backend)
    pieces = sorted((item, start) for row, _ in rows for item, start in zip(row.items, row.starts, strict=True))
    expected = [(item, start) for item, n in enumerate(lengths) for start in range(0, max(1, n), 32)]
    assert pieces == expected
    assert packer.n_split == np.count_nonzero(lengths > 32)
    assert packer.n_tokens == lengths.sum()
    for row, _ in rows:
        tokens = np.minimum(lengths[row.items] - row.starts, 32)
        assert (-(-tokens // 4) * 4).sum() <= 33


def test_items_longer_than_a_row(backend):
    packer = fastnlp.StreamPacker(10, buffer=2, backend=backend)
    packer.add([4])
    for lengths, index in ((11, "item 1 of the stream"), ([3, 11], "index 1"), (np.array([11]), "index 0")):
        with pytest.raises(ValueError, match=f"{index}.* 10 tokens of a row|10 tokens of a row.* {index}"):
            packer.add(lengths)
    assert (packer.n_added, packer.n_held) == (1, 1)
    packer, rows = packed([11, 3, 40], 10, overlong="drop", backend=backend)
    assert (as_lists(rows), packer.n_dropped, packer.n_added, packer.n_tokens) == ([([1], None)], 2, 3, 3)
    packer, rows = packed([11, 3, 40], 10, overlong="truncate", backend=backend)
    assert (len(rows), packer.n_truncated, packer.n_tokens) == (3, 2, 23)


def test_time_passes_with_dropped_items(backend):
    packer = fastnlp.StreamPacker(10, buffer=9, max_wait=2, overlong="drop", backend=backend)
    assert packer.add([3, 11]) == []
    assert [row.items.tolist() for row in packer.add([11, 11, 2])] == [[0]]


@pytest.mark.parametrize("overlong", ["error", "split"])
def test_a_stream_goes_on_from_a_saved_state(overlong, backend, rng):
    lengths = rng.integers(0, 40, 300) if overlong == "error" else rng.integers(0, 90, 300)
    make = {"capacity": 40, "buffer": 20, "overlong": overlong, "backend": backend}
    whole = fastnlp.StreamPacker(**make)
    expected = [row.items.tolist() for row in whole.add(lengths) + whole.flush()]
    for cut in (0, 1, 19, 150, 300):
        first, second = fastnlp.StreamPacker(**make), fastnlp.StreamPacker(**make)
        rows = [row for length in lengths[:cut] for row in first.add(int(length))]
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        third = pickle.loads(pickle.dumps(first))
        fourth = fastnlp.StreamPacker(**make)
        fourth.add(7)  # is forgotten
        fourth.load_state_dict(first.state_dict())
        for packer in (second, third, fourth):
            rest = packer.add(lengths[cut:]) + packer.flush()
            assert [row.items.tolist() for row in rows + rest] == expected
            assert packer.report() == whole.report()


def test_states_of_others_are_refused():
    packer = fastnlp.StreamPacker(10, buffer=5, backend="reference")
    packer.add([3, 4])
    state = packer.state_dict()
    for options in ({"capacity": 11}, {"buffer": 6}, {"max_wait": 1}, {"max_per_bin": 2}, {"overlong": "drop"}):
        other = fastnlp.StreamPacker(**{"capacity": 10, "buffer": 5, "backend": "reference", **options})
        with pytest.raises(ValueError, match="make this one with the same settings"):
            other.load_state_dict(state)
        assert other.n_added == 0
    held = {"positions": [0, 1], "starts": [0, 0], "lengths": [3, 4]}
    for change in (
        {"lengths": [3]},
        {"lengths": [3, 11]},
        {"lengths": [-1, 3]},
        {"positions": [1, 0]},
        {"positions": [0, 2]},
        {"starts": None},
    ):
        with pytest.raises(ValueError, match="state is damaged"):
            packer.load_state_dict({**state, "held": {**held, **change}})
    for bad in ({}, {"settings": 3}, {**state, "n_rows": "many"}):
        with pytest.raises(ValueError, match="state is not one of a StreamPacker"):
            packer.load_state_dict(bad)
    assert packer.state_dict() == state


@pytest.mark.parametrize("capacity", [2048, 8192])
def test_long_tailed_lengths_fill_their_rows(capacity):
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(np.log(200), 1, 12_000).clip(1, capacity).astype(np.int64)
    packer = fastnlp.StreamPacker(capacity)
    packer.add(lengths)
    assert packer.efficiency >= 0.9999
    assert packer.n_held <= 1000


def test_what_is_held_is_bounded(backend, rng):
    packer = fastnlp.StreamPacker(100, buffer=50, backend=backend)
    most = 0
    for length in rng.integers(1, 101, 2000):
        packer.add(int(length))
        most = max(most, packer.n_held)
    assert most == 50


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"capacity": 0}, ValueError, "capacity must be at least 1"),
        ({"capacity": 8.0}, TypeError, "capacity must be an integer"),
        ({"buffer": 0}, ValueError, "buffer must be at least 1"),
        ({"max_wait": -1}, ValueError, "max_wait must be at least 0"),
        ({"max_per_bin": 0}, ValueError, "max_per_bin must be at least 1"),
        ({"item_multiple": 9}, ValueError, "capacity must be at least item_multiple"),
        ({"overlong": "cut"}, ValueError, "overlong must be one of"),
        ({"backend": "gpu"}, ValueError, "backend must be one of"),
    ],
)
def test_bad_settings(options, error, match):
    with pytest.raises(error, match=match):
        fastnlp.StreamPacker(**{"capacity": 8, **options})


@pytest.mark.parametrize(
    ("lengths", "error"),
    [
        (-1, ValueError),
        ([-1], ValueError),
        (2**31, ValueError),
        ([2**31], ValueError),
        ([[1]], ValueError),
        (True, TypeError),
        (1.5, TypeError),
        ([1.5], TypeError),
        ([float("nan")], TypeError),
        ("a", (TypeError, ValueError)),
    ],
)
def test_bad_lengths_add_nothing(lengths, error):
    packer = fastnlp.StreamPacker(8, overlong="drop", backend="reference")
    with pytest.raises(error, match="lengths"):
        packer.add(lengths)
    assert packer.n_added == packer.n_held == 0


def test_a_capacity_far_above_all_tokens_takes_no_memory(backend):
    _, rows = packed([5, 3, 0, 9] * 50, 2**31 - 1, buffer=10, max_wait=120, backend=backend)
    assert [row.items.tolist() for row, _ in rows] == [list(range(121)), list(range(121, 200))]
