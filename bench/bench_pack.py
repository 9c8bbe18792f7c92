"""Packing of sequences into rows of a fixed number of tokens, on log-normal lengths (median 200 tokens, sigma 1).

Bytes: an int64 length read, an int32 index and an int32 length written for each item, three int64 written for each row.

The peers: best-fit-decreasing item by item in Python, with the rooms of the open rows kept sorted; TRL's
`pack_dataset` with its strategy "bfd", which also copies the tokens and is given the whole data set as one batch; and
`to_constant_volume` of binpacking.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from functools import partial

import numpy as np
import pytest

import fastnlp
from bench.harness import Absent, Contestant, prepared

CAPACITY = 2_048


@pytest.mark.parametrize("n", [2_000, 300_000])
def bench_pack(contest, n):
    lengths = np.random.default_rng(0).lognormal(np.log(200), 1, n).clip(1, CAPACITY).astype(np.int64)
    packing = fastnlp.pack(lengths, CAPACITY)
    ours = partial(fastnlp.pack, lengths, CAPACITY, backend="cpu")  # unasked, the first half million take NumPy
    slow = {"TRL": _trl, "binpacking": _binpacking}
    packages = [
        prepared(name, prepare, lengths) if n < 10_000 else Absent(name, f"takes seconds a call for {n:,} items")
        for name, prepare in slow.items()
    ]
    contest(
        "pack",
        f"{n:,} lengths, capacity {CAPACITY:,}",
        ours=Contestant("fastnlp", ours, result=list),
        peers=[Contestant("Python", partial(_best_fit, lengths)), *packages],
        expect=partial(_sound, lengths, packing.lower_bound),
        bytes=16 * n + 24 * len(packing),
    )


@pytest.mark.parametrize("algorithm", ["best_fit_decreasing", "next_fit"])
def bench_algorithms(contest, algorithm, n=100_000):
    lengths = np.random.default_rng(0).lognormal(np.log(200), 1, n).clip(1, CAPACITY).astype(np.int64)
    item_by_item = {"best_fit_decreasing": _best_fit, "next_fit": _next_fit}[algorithm]
    rows = len(item_by_item(lengths))
    contest(
        f"pack, {algorithm}",
        f"{n:,} lengths, capacity {CAPACITY:,}",
        ours=Contestant(
            "fastnlp", partial(fastnlp.pack, lengths, CAPACITY, algorithm=algorithm, backend="cpu"), result=list
        ),
        peers=[Contestant("Python", partial(item_by_item, lengths))],
        expect=partial(_as_many_rows, lengths, rows),
        bytes=16 * n + 24 * rows,
    )


def bench_shuffled(contest, n=300_000):
    lengths = np.random.default_rng(0).lognormal(np.log(200), 1, n).clip(1, CAPACITY).astype(np.int64)
    packing = fastnlp.pack(lengths, CAPACITY, seed=0)
    contest(
        "pack, seed",
        f"{n:,} lengths, capacity {CAPACITY:,}",
        ours=Contestant("fastnlp", partial(fastnlp.pack, lengths, CAPACITY, seed=0, backend="cpu"), result=list),
        peers=[Contestant("NumPy's permutations", partial(_numpy_shuffle, lengths), result=_split)],
        expect=partial(_as_many_rows, lengths, len(packing)),
        bytes=16 * n + 24 * len(packing),
    )


def _best_fit(lengths):
    rooms, rows = [], []  # (room, row) of the open rows, sorted
    order = np.argsort(-lengths, kind="stable").tolist()
    sizes = lengths.tolist()
    for item in order:
        size = sizes[item]
        at = bisect_left(rooms, (size, -1))
        if at == len(rooms):
            room, row = CAPACITY, len(rows)
            rows.append([])
        else:
            room, row = rooms.pop(at)
        rows[row].append(item)
        if room > size:
            insort(rooms, (room - size, row))
    return rows


def _next_fit(lengths):
    rows, room = [], -1
    for item, size in enumerate(lengths.tolist()):
        if size > room:
            rows.append([])
            room = CAPACITY
        rows[-1].append(item)
        room -= size
    return rows


def _numpy_shuffle(lengths):
    """Items and rows shuffled by NumPy, around a packing without a shuffle."""
    rng = np.random.default_rng(0)
    drawn = rng.permutation(lengths.size)
    packing = fastnlp.pack(lengths[drawn], CAPACITY, backend="cpu")
    rows = rng.permutation(len(packing))
    begin, width = packing.row_ptr[rows], np.diff(packing.row_ptr)[rows]
    end = np.cumsum(width)
    return drawn[packing.items[np.arange(end[-1]) + np.repeat(begin - end + width, width)]], end


def _split(packed):
    items, end = packed
    return np.split(items, end[:-1])


def _trl(lengths):
    from datasets import Dataset, disable_caching, disable_progress_bars
    from trl import pack_dataset

    disable_progress_bars()
    disable_caching()
    data = Dataset.from_dict({"input_ids": [[i] * size for i, size in enumerate(lengths.tolist())]})

    def items(packed):
        return [list(dict.fromkeys(row)) for row in packed["input_ids"]]

    call = partial(pack_dataset, data, CAPACITY, "bfd", {"batch_size": lengths.size})
    return Contestant("TRL", call, result=items)


def _as_many_rows(lengths, n_rows, rows):
    _sound(lengths, len(rows), rows)
    assert len(rows) == n_rows, f"{len(rows)} rows, {n_rows} were expected"


def _binpacking(lengths):
    from binpacking import to_constant_volume

    sizes = dict(enumerate(lengths.tolist()))
    return Contestant(
        "binpacking", partial(to_constant_volume, sizes, CAPACITY), result=lambda rows: list(map(list, rows))
    )


def _sound(lengths, fewest, rows):
    """Every item is in one row, no row is too long, and there are at most 1 % more rows than any packing needs."""
    assert sorted(item for row in rows for item in row) == list(range(lengths.size)), "not every item is in one row"
    longest = max(int(lengths[np.asarray(row)].sum()) for row in rows)
    assert longest <= CAPACITY, f"a row has {longest} tokens"
    assert len(rows) <= 1.01 * fewest, f"{len(rows)} rows, {fewest} might do"
