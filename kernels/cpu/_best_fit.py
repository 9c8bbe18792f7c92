"""Best-fit-decreasing on a histogram of lengths (what it does: ``reference/_best_fit.py``).

Schedule: one thread; the time grows with the groups of like rows, not with the items. A group knows its last entry, an
entry the one before it, so groups that part share what they had. Usable groups are in a heap by room and first row, in
one number; waiting ones in a heap by room.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cpu._jit import jit, kernel_part

_FIRST, _ROWS, _ROOM, _PLACES, _ENTRY = range(5)  # columns of groups
_BEFORE, _SINCE, _BEGIN, _COPIES = range(4)  # columns of entries: the first items and rows that an entry had when made


def best_fit_decreasing(  # (D,), (D,); (P,), (P,), (P + 1,), (E,), (E,), (2,)
    sizes, counts, capacity, max_per_row, repeats, tokens, entry_ptr, start, copies, used
):
    """Plan rows for counts[d] items of sizes[d] tokens each, sizes increasing; used = (patterns, entries)."""
    cursor = np.cumsum(counts) - counts
    groups, entries = np.empty((repeats.size + 1, 5), np.int64), np.empty((start.size + 1, 4), np.int64)
    heaps = np.empty((2, repeats.size + 1, 2), np.int64)
    _group(sizes, counts, cursor, capacity, max_per_row, groups, entries, heaps[0], heaps[1], used)
    groups = groups[: used[0]]
    in_order = groups[np.argsort(groups[:, _FIRST])]
    _list_entries(in_order, entries, entry_ptr, start, copies)
    repeats[: used[0]] = in_order[:, _ROWS]
    tokens[: used[0]] = capacity - in_order[:, _ROOM]
    used[1] = entry_ptr[used[0]]


@jit(
    "(int64[::1], int64[::1], int64[::1], int64, int64, int64[:, ::1], int64[:, ::1], int64[:, ::1], int64[:, ::1],"
    " int64[::1])"
)
def _group(sizes, counts, cursor, capacity, max_per_row, groups, entries, usable, waiting, used):
    n_groups = n_entries = n_usable = n_waiting = n_rows = np.int64(0)
    for d in range(sizes.size - 1, -1, -1):
        size, left = sizes[d], counts[d]
        while n_waiting > 0 and -waiting[0, 0] >= size:
            g = waiting[0, 1]
            n_waiting = _pop(waiting, n_waiting)
            n_usable = _push(usable, n_usable, groups[g, _ROOM] << 32 | groups[g, _FIRST], g)
        while left > 0:
            if n_usable > 0:
                g = usable[0, 1]
            else:  # as many empty rows as may be needed
                g = n_groups
                groups[g, _FIRST], groups[g, _ROWS], groups[g, _ROOM] = n_rows, left, capacity
                groups[g, _PLACES], groups[g, _ENTRY] = max_per_row, -1
            room, places = groups[g, _ROOM], groups[g, _PLACES]
            k = min(places, left)
            if size > 0:
                k = min(k, room // size)
            times = min(groups[g, _ROWS], left // k)
            filled = g
            if n_usable == 0:
                n_groups += 1
                n_rows += times
            elif times == groups[g, _ROWS]:
                n_usable = _pop(usable, n_usable)
            else:  # the first rows of the group part from it
                filled = n_groups
                n_groups += 1
                for column in range(5):
                    groups[filled, column] = groups[g, column]
                groups[g, _FIRST] += times
                groups[g, _ROWS] -= times
                n_usable = _pop(usable, n_usable)
                n_usable = _push(usable, n_usable, room << 32 | groups[g, _FIRST], g)
            entries[n_entries, _BEFORE], entries[n_entries, _SINCE] = groups[filled, _ENTRY], groups[filled, _FIRST]
            entries[n_entries, _BEGIN], entries[n_entries, _COPIES] = cursor[d], k
            groups[filled, _ROWS], groups[filled, _ENTRY] = times, n_entries
            groups[filled, _ROOM] -= k * size
            groups[filled, _PLACES] -= k
            n_entries += 1
            cursor[d] += times * k
            left -= times * k
            if places > k:
                n_waiting = _push(waiting, n_waiting, -groups[filled, _ROOM], filled)
    used[0] = n_groups


@jit("(int64[:, ::1], int64[:, ::1], int64[::1], int64[::1], int64[::1])")
def _list_entries(groups, entries, entry_ptr, start, copies):
    end = entry_ptr[0] = 0
    for p in range(len(groups)):
        e = groups[p, _ENTRY]
        while e >= 0:
            end += 1
            e = entries[e, _BEFORE]
        entry_ptr[p + 1] = at = end
        e = groups[p, _ENTRY]
        while e >= 0:
            at -= 1
            copies[at] = entries[e, _COPIES]
            start[at] = entries[e, _BEGIN] + (groups[p, _FIRST] - entries[e, _SINCE]) * copies[at]
            e = entries[e, _BEFORE]


@kernel_part
def _push(heap, n, key, value):
    """Put a value into a heap of n, the smallest key first, and return its size."""
    at = n
    while at > 0 and heap[(at - 1) >> 1, 0] > key:
        heap[at, 0], heap[at, 1] = heap[(at - 1) >> 1, 0], heap[(at - 1) >> 1, 1]
        at = (at - 1) >> 1
    heap[at, 0], heap[at, 1] = key, value
    return n + 1


@kernel_part
def _pop(heap, n):
    """Take the first value out of a heap of n, and return its size."""
    n -= 1
    key, value = heap[n, 0], heap[n, 1]
    at, child = np.int64(0), np.int64(1)
    while child < n:
        if child + 1 < n and heap[child + 1, 0] < heap[child, 0]:
            child += 1
        if heap[child, 0] >= key:
            break
        heap[at, 0], heap[at, 1] = heap[child, 0], heap[child, 1]
        at, child = child, 2 * child + 1
    heap[at, 0], heap[at, 1] = key, value
    return n
