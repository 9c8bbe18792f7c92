"""Rows completed from a stream of items, each around the oldest item that is held (the meaning: ``reference``).

Schedule: one thread, since each row depends on the one before. The sums that can be reached are bits of words of 64; a
new sum notes the item that made it, from which the row follows backwards. A row of C tokens costs C / 64 words for each
item that is taken up, and C notes. What is held is a queue; removing a row moves the older items that stay up to the
younger ones.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import intrinsic

from fastnlp.kernels.cpu._jit import jit, kernel_part


def complete_rows(sizes, positions, n_held, capacity, buffer, max_wait, max_per_row, taken, row_ptr, used):
    # (N,), (N,); (N,), (N + 1,), (3,)
    """Add the items from n_held on to the first n_held, oldest first; used = (rows, items in rows, items still held).

    taken has the indices of the items row by row, then of those held. An item of negative size only lets time pass.
    """
    queue = np.empty(sizes.size, np.int64)
    most = min(capacity, int(np.maximum(sizes, 0).sum()) + 1)  # no row has more tokens
    sums = np.empty(most // 64 + 1, np.uint64)
    made_by = np.empty(64 * sums.size, np.int32)
    _complete_rows(
        sizes, positions, n_held, capacity, buffer, max_wait, max_per_row, queue, sums, made_by, taken, row_ptr, used
    )


@jit(
    "(int64[::1], int64[::1], int64, int64, int64, int64, int64,"
    " int64[::1], uint64[::1], int32[::1], int64[::1], int64[::1], int64[::1])"
)
def _complete_rows(
    sizes, positions, n_held, capacity, buffer, max_wait, max_per_row, queue, sums, made_by, taken, row_ptr, used
):
    begin = end = tokens = rows = out = 0  # held: queue[begin:end], oldest first
    row_ptr[0] = 0
    for i in range(sizes.size):
        if sizes[i] >= 0:
            queue[end] = i
            end += 1
            tokens += sizes[i]
        while i >= n_held and begin < end:
            fills = tokens >= capacity or end - begin >= max_per_row
            if not (end - begin > buffer and fills) and positions[i] - positions[queue[begin]] < max_wait:
                break
            most = min(capacity, tokens + 1)  # not reached where all that is held fits
            last = _choose(sizes, queue, begin, end, most, max_per_row, sums, made_by)
            for j in range(begin, last + 1):
                if queue[j] < 0:  # chosen
                    taken[out] = ~queue[j]
                    tokens -= sizes[taken[out]]
                    out += 1
            stay = last
            for j in range(last, begin - 1, -1):
                if queue[j] >= 0:
                    queue[stay] = queue[j]
                    stay -= 1
            begin = stay + 1
            rows += 1
            row_ptr[rows] = out
    for j in range(begin, end):
        taken[out + j - begin] = queue[j]
    used[0], used[1], used[2] = rows, out, end - begin


@kernel_part
def _choose(sizes, queue, begin, end, most, max_per_row, sums, made_by):
    """Turn the entries of the row's items, `most` tokens, to complements; return the last place that may have one."""
    room = most - sizes[queue[begin]]
    scanned = _reach(sizes, queue, begin + 1, end, room, sums, made_by)
    left = room
    while not _has(sums, left):
        left -= 1
    count, rest = 1, left
    while rest > 0:
        rest -= sizes[queue[made_by[rest]]]
        count += 1
    queue[begin] = ~queue[begin]
    if count > max_per_row:
        _choose_longest(sizes, queue, begin + 1, end, room, max_per_row - 1)
        return end - 1
    while left > 0:
        j = made_by[left]
        left -= sizes[queue[j]]
        queue[j] = ~queue[j]
    for j in range(begin + 1, scanned):
        if count < max_per_row and queue[j] >= 0 and sizes[queue[j]] == 0:
            queue[j] = ~queue[j]
            count += 1
    return scanned - 1


@kernel_part
def _reach(sizes, queue, begin, end, room, sums, made_by):
    """Find the sums up to `room` of the items in the queue, until `room` is one; return the end of those taken up."""
    top = room >> 6
    for w in range(top + 1):
        sums[w] = 0
    sums[0] = 1
    within = np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(63 - (room & 63))  # of the top word
    total = 0
    for j in range(begin, end):
        if _has(sums, room):
            return j
        size = sizes[queue[j]]
        if size == 0 or size > room:
            continue
        total = min(total + size, room)
        words, bits = size >> 6, np.uint64(size & 63)
        for w in range(total >> 6, words - 1, -1):
            new = sums[w - words] << bits
            if bits and w > words:
                new |= sums[w - words - 1] >> (np.uint64(64) - bits)
            if w == top:
                new &= within
            new &= ~sums[w]
            sums[w] |= new
            while new:
                made_by[(w << 6) + _lowest(new)] = j
                new &= new - np.uint64(1)
    return end


@kernel_part
def _choose_longest(sizes, queue, begin, end, room, places):
    """Choose the longest items that fit, the older one first of two that are as long."""
    for _ in range(places):
        best, longest = -1, -1
        for j in range(begin, end):
            if queue[j] >= 0 and longest < sizes[queue[j]] <= room:
                best, longest = j, sizes[queue[j]]
        if best < 0:
            return
        room -= longest
        queue[best] = ~queue[best]


@kernel_part
def _has(sums, total):
    return (sums[total >> 6] >> np.uint64(total & 63)) & np.uint64(1) != 0


@intrinsic
def _lowest(typing_context, word):
    """Return the place of the lowest bit that is set."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], context.get_constant(types.boolean, True))

    return types.int64(types.uint64), codegen
