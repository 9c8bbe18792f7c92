"""Packing of items into rows, planned on the histogram of their lengths.

First-fit-decreasing fills its first row with the largest item that fits, again and again, until none does. Items of one
length are alike, so the row after it is the same as long as the counts of its lengths last. A plan is therefore a list
of patterns, each a row and how often it is repeated:

    pattern p      repeats[p] rows of tokens[p] tokens; its entries are entry_ptr[p] .. entry_ptr[p + 1]
    entry e        copies[e] items of one length in each of these rows; with the items sorted by length, those
                   of row j of the pattern are  start[e] + j copies[e]  and the following
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np

from fastnlp.kernels.reference._sort import counting_sort


def first_fit_decreasing(  # (D,), (D,); (P,), (P,), (P + 1,), (E,), (E,), (2,)
    sizes, counts, capacity, max_per_row, repeats, tokens, entry_ptr, start, copies, used
):
    """Plan rows for counts[d] items of sizes[d] tokens each, sizes increasing; used = (patterns, entries)."""
    alive = sizes.tolist()
    left = dict(zip(alive, counts.tolist(), strict=True))
    cursor = dict(zip(alive, (np.cumsum(counts) - counts).tolist(), strict=True))
    p = e = 0
    entry_ptr[0] = 0
    while alive:
        row = _fill_row(alive, left, capacity, max_per_row)
        times = min(left[size] // k for size, k in row)
        for size, k in row:
            start[e], copies[e] = cursor[size], k
            cursor[size] += times * k
            left[size] -= times * k
            if not left[size]:
                del alive[bisect_left(alive, size)]
            e += 1
        repeats[p], tokens[p] = times, sum(size * k for size, k in row)
        p += 1
        entry_ptr[p] = e
    used[:] = p, e


def deal(keys, visit, n_keys, repeats, entry_ptr, start, copies, row_ptr, items):
    # (N,), (N,), (P,), (P + 1,), (E,), (E,), (R + 1,), (M,)
    """Deal the items, sorted by key and in the order of `visit` within one, to the rows of a plan."""
    order = np.empty_like(visit)
    counting_sort(keys, visit, n_keys, order)
    first = 0
    for p, times in enumerate(repeats):
        rows = items[row_ptr[first] : row_ptr[first + times]].reshape(times, -1)
        first += times
        column = 0
        for e in range(entry_ptr[p], entry_ptr[p + 1]):
            begin, k = start[e], copies[e]
            rows[:, column : column + k] = order[begin : begin + times * k].reshape(times, k)
            column += k


def _fill_row(alive, left, capacity, max_per_row):
    row = []
    room, places, end = capacity, max_per_row, len(alive)
    while places:
        end = bisect_right(alive, room, 0, end) - 1
        if end < 0:
            break
        size = alive[end]
        k = min(left[size], places, room // size if size else places)
        row.append((size, k))
        room -= k * size
        places -= k
    return row
