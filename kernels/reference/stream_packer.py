"""Rows completed from a stream of items, each around the oldest item that is held.

The other items of a row are those held whose sizes come closest to the room that is left: a subset sum. The sums that
can be reached are the bits of a number, of which an item of s tokens sets bit b + s for each bit b. Items are taken up
from the oldest on until a sum fills the room. So a row has the oldest items that fill it, in the order of the stream,
and what is held keeps the mixture of lengths that the stream has.

A row is due when more than `buffer` items are held that fill a row, in tokens or in number, and when the oldest has
waited `max_wait` positions.
"""

from __future__ import annotations


def complete_rows(sizes, positions, n_held, capacity, buffer, max_wait, max_per_row, taken, row_ptr, used):
    # (N,), (N,); (N,), (N + 1,), (3,)
    """Add the items from n_held on to the first n_held, oldest first; used = (rows, items in rows, items still held).

    taken has the indices of the items row by row, then of those held. An item of negative size only lets time pass.
    """
    held, tokens, rows, out = [], 0, 0, 0
    row_ptr[0] = 0
    for i, (size, now) in enumerate(zip(sizes.tolist(), positions.tolist(), strict=True)):
        if size >= 0:
            held.append(i)
            tokens += size
        while i >= n_held and held:
            fills = tokens >= capacity or len(held) >= max_per_row
            if not (len(held) > buffer and fills) and now - positions[held[0]] < max_wait:
                break
            row = _row(sizes[held].tolist(), capacity, max_per_row)
            taken[out : out + len(row)] = [held[j] for j in row]
            tokens -= int(sizes[taken[out : out + len(row)]].sum())
            out += len(row)
            rows += 1
            row_ptr[rows] = out
            for j in reversed(row):
                del held[j]
    taken[out : out + len(held)] = held
    used[:] = rows, out, len(held)


def _row(sizes, capacity, max_per_row):
    """Return which of the held items make up a row."""
    room = left = capacity - sizes[0]
    within = (1 << (min(room, sum(sizes)) + 1)) - 1
    sums, before = 1, []
    for size in sizes[1:]:
        if sums >> room & 1:
            break
        before.append(sums)
        sums |= (sums << size) & within
    left = sums.bit_length() - 1
    row = [0]
    for j in range(len(before), 0, -1):
        if not before[j - 1] >> left & 1:
            row.append(j)
            left -= sizes[j]
    if len(row) > max_per_row:
        return _longest(sizes, capacity, max_per_row)
    empty = [j for j in range(1, len(before) + 1) if sizes[j] == 0]
    return sorted(row + empty[: max_per_row - len(row)])


def _longest(sizes, capacity, max_per_row):
    """Return the oldest item with the longest that fit, the older one first of two that are as long."""
    row, room = [0], capacity - sizes[0]
    for j in sorted(range(1, len(sizes)), key=lambda j: -sizes[j]):
        if len(row) == max_per_row:
            break
        if sizes[j] <= room:
            row.append(j)
            room -= sizes[j]
    return sorted(row)
