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
from itertools import pairwise

import numpy as np

from fastnlp.kernels.reference._best_fit import best_fit_decreasing as best_fit_decreasing
from fastnlp.kernels.reference._sort import count_keys as count_keys
from fastnlp.kernels.reference._sort import sort_by_key as sort_by_key


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


def next_fit(sizes, capacity, max_per_row, row_ptr, used):  # (N,), (N + 1,), (1,)
    """Cut the items, in their order, into rows: a row ends before the first item that does not fit; used = (rows,)."""
    n = sizes.size
    tokens = np.zeros(n + 1, np.int64)
    np.cumsum(sizes, out=tokens[1:])
    end = np.searchsorted(tokens, tokens[:-1] + capacity, "right") - 1  # of a row that begins here
    end = np.minimum(end, np.arange(n) + max_per_row).tolist()
    row_ptr[0] = rows = at = 0
    while at < n:
        at = end[at]
        rows += 1
        row_ptr[rows] = at
    used[0] = rows


def deal(order, repeats, entry_ptr, start, copies, sizes, place, items, lengths):
    # (N,), (P,), (P + 1,), (E,), (E,), (E,), (R,), (N,), (N,)
    """Deal the items, sorted by length, to a plan's rows: row r begins at place[r], entry e has the length sizes[e]."""
    width = np.add.reduceat(copies, entry_ptr[:-1]) if copies.size else copies
    width_of_row = np.repeat(width, repeats)
    begin = np.cumsum(width_of_row) - width_of_row
    in_plan_order = np.array_equal(begin, place)
    dealt, dealt_lengths = (items, lengths) if in_plan_order else (np.empty_like(items), np.empty_like(lengths))
    at = 0
    entries = list(zip(start.tolist(), copies.tolist(), sizes.tolist(), strict=True))
    for times, columns, (low, high) in zip(repeats.tolist(), width.tolist(), pairwise(entry_ptr.tolist()), strict=True):
        end = at + times * columns
        rows, row_lengths = dealt[at:end].reshape(times, columns), dealt_lengths[at:end].reshape(times, columns)
        at, column = end, 0
        for source, k, size in entries[low:high]:
            rows[:, column : column + k] = order[source : source + times * k].reshape(times, k)
            row_lengths[:, column : column + k] = size
            column += k
    if not in_plan_order:
        places = np.repeat(place - begin, width_of_row) + np.arange(items.size)
        items[places], lengths[places] = dealt, dealt_lengths


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
