"""Packing of items into rows, planned on the histogram of their lengths (the plan: ``reference/pack.py``).

Schedule: the plan runs on one thread, in time that grows with the lengths, not with the items. Used-up ones are skipped
through pointers whose paths are halved on the way. Then a counting sort, and a deal in parallel over rows. Rows of one
pattern are dealt column by column, in blocks that stay in the nearest cache: a column reads one stretch of the sorted
items, and its loop has no branch. Bytes an item, with 32-bit indices: 16 for the sort, 20 for the deal.
"""

from __future__ import annotations

import numpy as np

from fastnlp._threads import run
from fastnlp.kernels.cpu._best_fit import best_fit_decreasing as best_fit_decreasing
from fastnlp.kernels.cpu._jit import jit, kernel_part
from fastnlp.kernels.cpu._sort import count_keys as count_keys
from fastnlp.kernels.cpu._sort import sort_by_key as sort_by_key

_ITEMS_A_TASK = 1 << 16
_ITEMS_A_BLOCK = 1 << 11  # its rows stay in the nearest cache while each of their columns is written


def first_fit_decreasing(  # (D,), (D,); (P,), (P,), (P + 1,), (E,), (E,), (2,)
    sizes, counts, capacity, max_per_row, repeats, tokens, entry_ptr, start, copies, used
):
    """Plan rows for counts[d] items of sizes[d] tokens each, sizes increasing; used = (patterns, entries)."""
    cursor = np.cumsum(counts) - counts
    # slot d + 1 leads to the largest length, not above sizes[d], that has items left; slot 0: there is none
    below = np.arange(sizes.size + 1)
    _plan(sizes, counts.copy(), cursor, below, capacity, max_per_row, repeats, tokens, entry_ptr, start, copies, used)


def next_fit(sizes, capacity, max_per_row, row_ptr, used):  # (N,), (N + 1,), (1,)
    """Cut the items, in their order, into rows: a row ends before the first item that does not fit; used = (rows,)."""
    _next_fit(sizes, capacity, max_per_row, row_ptr, used)


def deal(order, repeats, entry_ptr, start, copies, sizes, place, items, lengths):
    # (N,), (P,), (P + 1,), (E,), (E,), (E,), (R,), (N,), (N,)
    """Deal the items, sorted by length, to a plan's rows: row r begins at place[r], entry e has the length sizes[e]."""
    first = np.zeros(repeats.size + 1, np.int64)
    np.cumsum(repeats, out=first[1:])
    grain = max(1, _ITEMS_A_TASK * place.size // max(1, items.size))
    run(_deal, place.size, order, first, entry_ptr, start, copies, sizes, place, items, lengths, grain=grain)


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


@jit("(int32[::1], int64, int64, int64[::1], int64[::1])")
def _next_fit(sizes, capacity, max_per_row, row_ptr, used):
    rows = begin = 0
    tokens = 0
    for i in range(sizes.size):
        tokens += sizes[i]
        if i == begin:
            row_ptr[rows] = i
            rows += 1
        elif tokens > capacity or i - begin == max_per_row:
            row_ptr[rows] = i
            rows += 1
            begin = i
            tokens = int(sizes[i])
    row_ptr[rows] = sizes.size
    used[0] = rows


@jit(
    "(int64, int64, {i}[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], {i}[::1],"
    " int32[::1])"
)
def _deal(begin, end, order, first, entry_ptr, start, copies, sizes, place, items, lengths):
    p = _at_most(first, first.size, begin) - 1
    row = begin
    while row < end:
        while first[p + 1] <= row:
            p += 1
        width = np.int64(0)
        for e in range(entry_ptr[p], entry_ptr[p + 1]):
            width += copies[e]
        stop = min(end, first[p + 1], row + max(1, _ITEMS_A_BLOCK // width))
        column = np.int64(0)
        for e in range(entry_ptr[p], entry_ptr[p + 1]):
            k, size = copies[e], np.int32(sizes[e])
            for i in range(k):
                source = start[e] + (row - first[p]) * k + i
                for r in range(np.uint64(row), np.uint64(stop)):
                    at = np.uint64(place[r] + column)
                    items[at] = order[np.uint64(source)]
                    lengths[at] = size
                    source += k
                column += 1
        row = stop
