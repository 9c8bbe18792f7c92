"""Batches of items of like length (the meaning: ``reference/bucket_batches.py``).

Schedule: a counting sort; the cuts in one pass over the runs of the histogram; then one pass over the batches, in
parallel, that copies each and reads its lengths.
"""

from __future__ import annotations

import numpy as np

from fastnlp._threads import run
from fastnlp.kernels.cpu._jit import jit
from fastnlp.kernels.cpu._sort import count_keys as count_keys
from fastnlp.kernels.cpu._sort import counting_sort as counting_sort
from fastnlp.kernels.cpu._sort import sort_by_key as sort_by_key

_ITEMS_A_TASK = 1 << 16


def cut(most, ends, group_ends, begin, used):  # (D,), (D,), (G,), (M,), (1,)
    """Cut sorted items into batches, from the longest item down: a batch begins at begin[b], before it at begin[b - 1].

    Items are in runs that end at `ends`; a batch whose last item is of run d has most[d] items, or what is left of the
    group, which ends at `group_ends`; used = (batches,).
    """
    _cut(most, ends, group_ends, begin, used)


@jit("(int64[::1], int64[::1], int64[::1], int64[::1], int64[::1])")
def _cut(most, ends, group_ends, begin, used):
    n = 0
    d = ends.size - 1
    for g in range(group_ends.size - 1, -1, -1):
        first = group_ends[g - 1] if g else np.int64(0)
        end = group_ends[g]
        while end > first:
            while d > 0 and ends[d - 1] >= end:
                d -= 1
            end = max(first, end - most[d])
            begin[n] = end
            n += 1
    used[0] = n


def collect(order, lengths, begin, batch_ptr, items, item_lengths, longest, tokens):
    # (M,), (N,), (B,), (B + 1,), (I,), (I,), (B,), (B,)
    """Fill batch b with the sorted items from begin[b] on, and their lengths; find the longest length and the sum."""
    grain = max(1, _ITEMS_A_TASK * begin.size // max(1, items.size))
    run(_collect, begin.size, order, lengths, begin, batch_ptr, items, item_lengths, longest, tokens, grain=grain)


@jit("(int64, int64, {i}[::1], int32[::1], int64[::1], int64[::1], {i}[::1], int32[::1], int64[::1], int64[::1])")
def _collect(first, last, order, lengths, begin, batch_ptr, items, item_lengths, longest, tokens):
    for b in range(first, last):
        shift = begin[b] - batch_ptr[b]
        top = total = np.int64(0)
        for i in range(batch_ptr[b], batch_ptr[b + 1]):
            item = order[i + shift]
            length = lengths[item]
            items[i] = item
            item_lengths[i] = length
            top = max(top, np.int64(length))
            total += length
        longest[b] = top
        tokens[b] = total


def optimal_boundaries(sizes, counts, bounds):  # (D,), (D,), (K,)
    """Choose K of the increasing sizes as bounds, so that sum_d counts[d] min{b in bounds: b >= sizes[d]} is least."""
    items = np.cumsum(counts)
    cost = np.empty((2, sizes.size), np.int64)
    best = np.empty((bounds.size, sizes.size + 1), np.int64)
    _optimal_boundaries(sizes, items, cost, best, bounds)


@jit("(int64[::1], int64[::1], int64[:, ::1], int64[:, ::1], int64[::1])")
def _optimal_boundaries(sizes, items, cost, best, bounds):
    n = sizes.size
    for j in range(n):
        cost[0, j] = items[j] * sizes[j]
    for k in range(1, bounds.size):
        before, after = cost[(k - 1) & 1], cost[k & 1]
        best[k, k - 1], best[k, n] = k - 1, n
        stride = 1
        while stride < n:
            stride *= 2
        while stride > 0:
            for j in range(k - 1 + stride, n, 2 * stride):
                where = best[k, j - stride]
                high = min(best[k, min(j + stride, n)], j - 1)
                least = before[where] + (items[j] - items[where]) * sizes[j]
                for i in range(where + 1, high + 1):
                    padded = before[i] + (items[j] - items[i]) * sizes[j]
                    if padded < least:
                        where, least = i, padded
                after[j], best[k, j] = least, where
            stride //= 2
    last = n - 1
    for k in range(bounds.size - 1, -1, -1):
        bounds[k] = sizes[last]
        last = best[k, last]
