"""A stable sort of items by small integer keys, by counting.

Schedule: items are cut into chunks; each counts its keys, a running sum over (key, chunk) tells where the items of each
key in each chunk go, and each chunk writes them there. Chunks are several times as long as there are keys, so that the
counts take less memory than the items. Indices are unsigned: signed ones are tested for being below zero, which takes
half of the time.
"""

from __future__ import annotations

import numpy as np

from fastnlp._threads import run
from fastnlp.kernels.cpu._jit import jit


def count_keys(keys, counts):  # (N,), (chunks, K)
    """counts[c, k] = how many items of chunk c have key k; chunks have ``ceil(N / chunks)`` items."""
    counts.fill(0)
    chunk = -(-keys.size // len(counts))
    run(_count, keys.size, keys, chunk, counts, grain=chunk)


def sort_by_key(keys, values, counts, order):  # (N,), (N,) or None, (chunks, K), (N,)
    """Write `values`, or 0, 1, 2 ..., sorted by key to `order`, equal keys in their order; `counts` by `count_keys`."""
    chunk = -(-keys.size // len(counts))
    places = np.cumsum(counts.T).reshape(counts.shape[::-1]).T - counts
    run(_place, keys.size, keys, values, chunk, np.ascontiguousarray(places), order, grain=chunk)


def counting_sort(keys, visit, n_keys, order):  # (N,) int32, (M,), (M,)
    """Write `visit` to `order`, sorted by keys[visit]; items of one key stay in the order of `visit`."""
    if visit.size:
        visited = keys[visit]
        counts = np.empty((max(1, visit.size // max(1 << 17, 4 * n_keys)), n_keys), np.int64)
        count_keys(visited, counts)
        sort_by_key(visited, visit, counts, order)


@jit("(int64, int64, int32[::1], int64, int64[:, ::1])")
def _count(begin, end, keys, chunk, counts):
    mine = counts[begin // chunk]
    for i in range(np.uint64(begin), np.uint64(end)):
        mine[np.uint64(keys[i])] += 1


@jit(
    "(int64, int64, int32[::1], none, int64, int64[:, ::1], {i}[::1])",
    "(int64, int64, int32[::1], {i}[::1], int64, int64[:, ::1], {i}[::1])",
)
def _place(begin, end, keys, values, chunk, places, order):
    place = places[begin // chunk]
    for i in range(np.uint64(begin), np.uint64(end)):
        key = np.uint64(keys[i])
        order[np.uint64(place[key])] = i if values is None else values[i]
        place[key] += 1
