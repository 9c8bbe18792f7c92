"""Batches of items of like length.

Items are visited in a given (shuffled) order and sorted by a key, stably; a batch is a stretch of the sorted items.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from fastnlp.kernels.reference._sort import count_keys as count_keys
from fastnlp.kernels.reference._sort import counting_sort as counting_sort
from fastnlp.kernels.reference._sort import sort_by_key as sort_by_key


def cut(most, ends, group_ends, begin, used):  # (D,), (D,), (G,), (M,), (1,)
    """Cut sorted items into batches, from the longest item down: a batch begins at begin[b], before it at begin[b - 1].

    Items are in runs that end at `ends`; a batch whose last item is of run d has most[d] items, or what is left of the
    group, which ends at `group_ends`; used = (batches,).
    """
    n = 0
    for first, end in reversed(list(zip([0, *group_ends[:-1].tolist()], group_ends.tolist(), strict=False))):
        while end > first:
            end = max(first, end - int(most[bisect_left(ends, end)]))
            begin[n] = end
            n += 1
    used[0] = n


def collect(order, lengths, begin, batch_ptr, items, item_lengths, longest, tokens):
    # (M,), (N,), (B,), (B + 1,), (I,), (I,), (B,), (B,)
    """Fill batch b with the sorted items from begin[b] on, and their lengths; find the longest length and the sum."""
    first = batch_ptr[:-1]
    items[...] = order[np.arange(items.size) + np.repeat(begin - first, np.diff(batch_ptr))]
    item_lengths[...] = lengths[items]
    np.maximum.reduceat(item_lengths, first, dtype=np.int64, out=longest)
    np.add.reduceat(item_lengths, first, dtype=np.int64, out=tokens)


def optimal_boundaries(sizes, counts, bounds):  # (D,), (D,), (K,)
    """Choose K of the increasing sizes as bounds, so that sum_d counts[d] min{b in bounds: b >= sizes[d]} is least.

    cost_1[j] = items[j] sizes[j] and cost_k[j] = min_{i < j} cost_{k-1}[i] + (items[j] - items[i]) sizes[j] pad the
    first j + 1 sizes with k bounds. The best i grows with j, so half the rows bound the search in the other half. Of
    equally good ones the least is taken.
    """
    n = sizes.size
    items = np.cumsum(counts)
    cost = items * sizes
    best = np.empty((bounds.size, n + 1), np.int64)
    for k in range(1, bounds.size):
        cost, before = np.empty_like(cost), cost
        best[k, k - 1], best[k, n] = k - 1, n  # no row begins its search before, none ends behind
        stride = 1 << n.bit_length()
        while stride:
            rows = np.arange(k - 1 + stride, n, 2 * stride)
            if rows.size:
                low, high = best[k, rows - stride], best[k, np.minimum(rows + stride, n)]
                _search(before, items, sizes, rows, low, np.minimum(high, rows - 1), cost, best[k])
            stride //= 2
    last = n - 1
    for k in reversed(range(bounds.size)):
        bounds[k] = sizes[last]
        last = best[k, last]


def _search(before, items, sizes, rows, low, high, cost, best):
    """Fill cost[rows] and best[rows], looking from low to high."""
    widths = high - low + 1
    starts = np.cumsum(widths) - widths
    i = np.arange(widths.sum()) + np.repeat(low - starts, widths)
    j = np.repeat(rows, widths)
    padded = before[i] + (items[j] - items[i]) * sizes[j]
    least = np.minimum.reduceat(padded, starts)
    hits = np.flatnonzero(padded == np.repeat(least, widths))
    cost[rows] = least
    best[rows] = i[hits[np.searchsorted(hits, starts)]]
