"""Stretches of rows, one after another: which row comes where."""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._schedule import spread
from fastnlp.kernels.cuda.prims import block, blocks, given, kernel, part, thread, threads

_THREADS = 128


def stretch_rows(place, order, begin, last, rows):  # (N,), (N,) or None, (N + 1,), (T,)
    """Write the rows of stretches: ``begin[k + 1] - begin[k]`` from ``place[order[k]]`` on, none beyond `last`."""
    library, n = rows.library, begin.size - 1
    args = (place, order, begin, n, last, rows.size, rows)
    library.launch(rows_of_stretches, spread(library, rows.size, _THREADS) if rows.size else 0, _THREADS, *args)


@kernel("i* i64* i64* i64 i64 i64 i64*", threads=_THREADS)
def rows_of_stretches(place, order, begin, n, last, total, rows):
    """Write the row of each of `total` places: a thread a place, its stretch found by bisection."""
    i = np.int64(block()) * threads() + thread()
    while i < total:
        s = segment_of(begin, n, i)
        row = place[order[s] if given(order) else s] + (i - begin[s])
        rows[i] = min(max(row, 0), last)
        i += np.int64(blocks()) * threads()


@part
def segment_of(begin, n, p):
    """Return the segment of place p: the last of n that begins there or before."""
    low, high = np.int64(0), n
    while high - low > 1:
        middle = (low + high) >> 1
        if begin[middle] <= p:
            low = middle
        else:
            high = middle
    return low
