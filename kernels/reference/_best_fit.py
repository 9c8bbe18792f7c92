"""Best-fit-decreasing on a histogram of lengths.

Each item goes to the row that it fills most; where several have equally little room, to the first of them. Rows that
are alike and neighbours are a group: as many copies of a length as fit go to its first row, then to its second, and so
on. So a length is placed by groups, and what is left of a group is one again.

Lengths decrease, so rows with less room than the present length may become usable later: they wait in a heap by their
room, the largest first. Usable ones are in a heap by (room, first row).
"""

from __future__ import annotations

from heapq import heappop, heappush
from operator import itemgetter

import numpy as np


def best_fit_decreasing(  # (D,), (D,); (P,), (P,), (P + 1,), (E,), (E,), (2,)
    sizes, counts, capacity, max_per_row, repeats, tokens, entry_ptr, start, copies, used
):
    """Plan rows for counts[d] items of sizes[d] tokens each, sizes increasing; used = (patterns, entries)."""
    usable: list = []  # groups: (room, first row, rows, places left, entries)
    waiting: list = []  # the same with -room
    done: list = []
    cursor = (np.cumsum(counts) - counts).tolist()
    n_rows = 0
    for d in range(sizes.size - 1, -1, -1):
        size, left = int(sizes[d]), int(counts[d])
        while waiting and -waiting[0][0] >= size:
            negative, *group = heappop(waiting)
            heappush(usable, (-negative, *group))
        while left:
            if usable:
                room, first, rows, places, entries = heappop(usable)
            else:
                room, first, rows, places, entries = capacity, n_rows, left, max_per_row, ()
            k = min(room // size if size else places, places, left)
            times = min(rows, left // k)
            if first == n_rows:
                n_rows += times
            elif rows > times:
                heappush(usable, (room, first + times, rows - times, places, entries))
            filled = (first, times, places - k, (*entries, (first, cursor[d], k)))
            cursor[d] += times * k
            left -= times * k
            if places == k:
                done.append((room - k * size, *filled))
            else:
                heappush(waiting, (k * size - room, *filled))
    groups = [*done, *usable, *((-negative, *group) for negative, *group in waiting)]
    e = 0
    entry_ptr[0] = 0
    for p, (room, first, rows, _, entries) in enumerate(sorted(groups, key=itemgetter(1))):
        for since, begin, k in entries:  # of a group that began with row `since`
            start[e], copies[e] = begin + (first - since) * k, k
            e += 1
        repeats[p], tokens[p] = rows, capacity - room
        entry_ptr[p + 1] = e
    used[:] = len(groups), e
