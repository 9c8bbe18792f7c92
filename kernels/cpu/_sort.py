"""A stable sort of items by small integer keys, by counting.

Schedule: items are cut into chunks; each counts its keys, a running sum over (key, chunk) tells where the items of each
key in each chunk go, and each chunk writes them there. Chunks are several times as long as there are keys, so that the
counts take less memory than the items. Bytes an item: 32, two reads of index and key and one write.
"""

from __future__ import annotations

import numpy as np

from fastnlp._threads import run
from fastnlp.kernels.cpu._jit import jit

_ITEMS_A_TASK = 1 << 17


def counting_sort(keys, visit, n_keys, order):  # (N,) int32, (M,) int64, (M,) int64
    """Write `visit` to `order`, sorted by keys[visit]; items of one key stay in the order of `visit`."""
    chunk = max(_ITEMS_A_TASK, 4 * n_keys)
    counts = np.zeros((-(-visit.size // chunk), n_keys), np.int64)  # (chunks, keys)
    run(_count, visit.size, keys, visit, chunk, counts, grain=chunk)
    ends = np.cumsum(counts.T).reshape(n_keys, -1).T if counts.size else counts
    run(_place, visit.size, keys, visit, chunk, np.ascontiguousarray(ends - counts), order, grain=chunk)


@jit("(int64, int64, int32[::1], int64[::1], int64, int64[:, ::1])")
def _count(begin, end, keys, visit, chunk, counts):
    mine = counts[begin // chunk]
    for i in range(begin, end):
        mine[keys[visit[i]]] += 1


@jit("(int64, int64, int32[::1], int64[::1], int64, int64[:, ::1], int64[::1])")
def _place(begin, end, keys, visit, chunk, places, order):
    place = places[begin // chunk]
    for i in range(begin, end):
        item = visit[i]
        key = keys[item]
        order[place[key]] = item
        place[key] += 1
