"""Packing of a stream into rows through a buffer of 1,000 items, on log-normal lengths (median 200 tokens, sigma 1).

Bytes: an int64 length read and an int64 position written for each item.

The peers see as much of the stream at a time, but carry nothing over, and so need more rows: TRL's `pack_dataset` with
its strategy "bfd" packs each 1,000 examples for themselves (it also copies the tokens), as does
first-fit-decreasing in Python.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from functools import partial

import numpy as np
import pytest

import fastnlp
from bench.harness import Contestant, prepared

BUFFER = 1000


@pytest.mark.parametrize(("n", "capacity"), [(4_000, 2_048), (20_000, 8_192)])
def bench_stream_packer(contest, n, capacity):
    lengths = np.random.default_rng(0).lognormal(np.log(200), 1, n).clip(1, capacity).astype(np.int64)
    peers = [Contestant("Python", partial(_chunks, lengths, capacity))]
    if n < 10_000:
        peers.append(prepared("TRL", _trl, lengths, capacity))
    packer = fastnlp.StreamPacker(capacity, BUFFER)
    packer.add(lengths)
    steady = packer.efficiency
    contest(
        "stream_packer",
        f"{n:,} lengths, capacity {capacity:,}",
        ours=Contestant("fastnlp", partial(_ours, lengths, capacity), result=_items),
        peers=peers,
        expect=partial(_sound, lengths, capacity),
        bytes=16 * n,
        note=f"Before the end of the stream, the rows of fastnlp are {steady:.4%} full.",
    )


def _ours(lengths, capacity):
    packer = fastnlp.StreamPacker(capacity, BUFFER, backend="cpu")
    return packer.add(lengths) + packer.flush()


def _items(rows):
    return [row.items for row in rows]


def _chunks(lengths, capacity):
    rows = []
    for first in range(0, lengths.size, BUFFER):
        sizes, open_rows = lengths[first : first + BUFFER].tolist(), []  # (room, row), sorted
        for item in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
            size = sizes[item]
            at = bisect_left(open_rows, (size, -1))
            if at == len(open_rows):
                room, row = capacity, len(rows)
                rows.append([])
            else:
                room, row = open_rows.pop(at)
            rows[row].append(first + item)
            insort(open_rows, (room - size, row))
    return rows


def _trl(lengths, capacity):
    from datasets import Dataset, disable_caching, disable_progress_bars
    from trl import pack_dataset

    disable_progress_bars()
    disable_caching()
    data = Dataset.from_dict({"input_ids": [[i] * size for i, size in enumerate(lengths.tolist())]})

    def items(packed):
        return [list(dict.fromkeys(row)) for row in packed["input_ids"]]

    return Contestant("TRL", partial(pack_dataset, data, capacity, "bfd"), result=items)


def _sound(lengths, capacity, rows):
    """Every item is in one row, no row is too long, and all rows together are at least 97 % full."""
    assert sorted(item for row in rows for item in row) == list(range(lengths.size)), "not every item is in one row"
    longest = max(int(lengths[np.asarray(row)].sum()) for row in rows)
    assert longest <= capacity, f"a row has {longest} tokens"
    full = int(lengths.sum()) / (len(rows) * capacity)
    assert full >= 0.97, f"the rows are {full:.2%} full"
