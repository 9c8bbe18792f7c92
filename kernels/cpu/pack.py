"""Packing of items into rows, planned on the histogram of their lengths (the plan: ``reference/pack.py``).

Schedule: the plan runs on one thread, in time that grows with the lengths, not with the items. Used-up ones are skipped
through pointers whose paths are halved on the way. Then a counting sort, and a deal in parallel over rows: it reads the
items of each length and writes the rows in sequence. Bytes an item: 32 for the sort, 16 for the deal.
"""

from __future__ import annotations

import numpy as np

from fastnlp._threads import run
from fastnlp.kernels.cpu._jit import jit, kernel_part
from fastnlp.kernels.cpu._sort import counting_sort

_ITEMS_A_TASK = 1 << 16


def first_fit_decreasing(  # (D,), (D,); (P,), (P,), (P + 1,), (E,), (E,), (2,)
    sizes, counts, capacity, max_per_row, repeats, tokens, entry_ptr, start, copies, used
):
    """Plan rows for counts[d] items of sizes[d] tokens each, sizes increasing; used = (patterns, entries)."""
    cursor = np.cumsum(counts) - counts
    # slot d + 1 leads to the largest length, not above sizes[d], that has items left; slot 0: there is none
    below = np.arange(sizes.size + 1)
    _plan(sizes, counts.copy(), cursor, below, capacity, max_per_row, repeats, tokens, entry_ptr, start, copies, used)


def deal(keys, visit, n_keys, repeats, entry_ptr, start, copies, row_ptr, items):
    # (N,), (N,), (P,), (P + 1,), (E,), (E,), (R + 1,), (M,)
    """Deal the items, sorted by key and in the order of `visit` within one, to the rows of a plan."""
    order = np.empty_like(visit)
    counting_sort(keys, visit, n_keys, order)
    n_rows = row_ptr.size - 1
    pattern = np.repeat(np.arange(repeats.size), repeats)  # (R,)
    first = np.cumsum(repeats) - repeats
    grain = max(1, _ITEMS_A_TASK * n_rows // max(1, items.size))
    run(_deal, n_rows, order, pattern, first, entry_ptr, start, copies, row_ptr, items, grain=grain)


@jit(
    "(int64[::1], int64[::1], int64[::1], int64[::1], int64, int64,"
    " int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1])"
)
def _plan(sizes, left, cursor, below, capacity, max_per_row, repeats, tokens, entry_ptr, start, copies, used):
    p = e = 0
    entry_ptr[0] = 0
    top = _find(below, sizes.size)
    while top > 0:
        room, places, slot, times = capacity, max_per_row, top, left[top - 1]
        begin = e
        while slot > 0 and places > 0:
            d = slot - 1
            k = min(left[d], places)
            if sizes[d] > 0:
                k = min(k, room // sizes[d])
            times = min(times, left[d] // k)
            start[e], copies[e] = d, k  # the length until the row is complete
            e += 1
            room -= k * sizes[d]
            places -= k
            slot = _find(below, _at_most(sizes, d, room))
        for i in range(begin, e):
            d = start[i]
            start[i] = cursor[d]
            cursor[d] += times * copies[i]
            left[d] -= times * copies[i]
            if left[d] == 0:
                below[d + 1] = d
        repeats[p] = times
        tokens[p] = capacity - room
        p += 1
        entry_ptr[p] = e
        top = _find(below, top)
    used[0] = p
    used[1] = e


@kernel_part
def _find(below, slot):
    """Return the slot that `slot` leads to, halving the path on the way."""
    while below[slot] != slot:
        below[slot] = below[below[slot]]
        slot = below[slot]
    return slot


@kernel_part
def _at_most(sizes, n, room):
    """Return how many of the first n sizes, which increase, are at most `room`."""
    low, high = 0, n
    while low < high:
        middle = (low + high) >> 1
        if sizes[middle] <= room:
            low = middle + 1
        else:
            high = middle
    return low


@jit("(int64, int64, int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1])")
def _deal(begin, end, order, pattern, first, entry_ptr, start, copies, row_ptr, items):
    for r in range(begin, end):
        p = pattern[r]
        place = row_ptr[r]
        for e in range(entry_ptr[p], entry_ptr[p + 1]):
            k = copies[e]
            source = start[e] + (r - first[p]) * k
            for i in range(k):
                items[place + i] = order[source + i]
            place += k
