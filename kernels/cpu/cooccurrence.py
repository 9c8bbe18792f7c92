"""Weighted co-occurrence counts of words within a window (the equation: ``reference/cooccurrence.py``).

Schedule: a counting sort lists where each word stands; then one row of the matrix at a time, in a dense row of integers
that stays in cache, filled by visiting the word's places and their neighbours in the stream, which are asked for some
places ahead. A block of rows is a task. Bytes: two or three cache lines of the stream a place, one cached read and
write of the row a neighbour. A hash table would pay a cache miss for each.
"""

from __future__ import annotations

import numpy as np

from fastnlp._threads import run
from fastnlp.kernels.cpu._accumulator import LOW, ONE, SIX, move_all, move_touched
from fastnlp.kernels.cpu._jit import jit, kernel_part
from fastnlp.kernels.cpu._memory import prefetch

SEPARATOR = -1
_AHEAD = 16  # places
_REACH = 10  # words before and after a place that are asked for


def lay_out(ids, offsets, gap, stream):  # (T,), (D + 1,), int, (T + D + 1,)
    """Write the documents to the stream with a separator before, between and after them, and `gap` for ids of -1."""
    run(_lay_out, offsets.size, ids, offsets, gap, stream, grain=max(1, offsets.size // 16))


def histogram(stream, edges, counts):  # (L,), (P + 1,), (P, V)
    """Count each word in every piece ``stream[edges[p]:edges[p + 1]]``."""
    run(_histogram, counts.shape[0], stream, edges, counts, grain=1)


def locate(stream, edges, cursors, positions):  # (L,), (P + 1,), (P, V), (T,)
    """Write where the words stand: those of piece p that are word v from ``positions[cursors[p, v]]`` on.

    The cursors are moved to behind what is written.
    """
    run(_locate, cursors.shape[0], stream, edges, cursors, positions, grain=1)


def count(stream, starts, positions, words, weights, left, right, upper, rows, slots, sizes, indices, counts):
    # (L,), (V + 1,), (T,), (R,), (window + 1,), bool, bool, bool, (B + 1,), (B + 1,), (R,), (C,), (C,)
    """Count the rows ``[rows[b], rows[b + 1])`` of every block b.

    Row r is of word ``words[r]``; word v stands at ``stream[positions[starts[v]:starts[v + 1]]]``. The words to its
    `left` and to its `right` are counted, with `upper` only columns from the word itself on. Block b writes its columns
    and counts, row after row, from ``slots[b]`` on; row r has ``sizes[r]`` of them, in ascending order. What comes
    after them is overwritten: a row takes one entry more than it can have.
    """
    options = (weights, left, right, upper)
    run(_count, rows.size - 1, stream, starts, positions, words, *options, rows, slots, sizes, indices, counts, grain=1)


def add(begins, columns, values, width, rows, slots, sizes, indices, counts, overflows):
    # (K, R + 1), (E,), (E,), int, (B + 1,), (B + 1,), (R,), (C,), (C,), (B,)
    """Add K matrices row by row: row r of the k-th is ``columns`` and ``values`` in [begins[k, r], begins[k, r + 1]).

    Blocks, slots and sizes as in `count`. ``overflows[b]`` tells whether a sum of block b reached 2^64.
    """
    outputs = (sizes, indices, counts, overflows)
    run(_add, rows.size - 1, begins, columns, values, width, rows, slots, *outputs, grain=1)


@jit("(int64, int64, int32[::1], int64[::1], int64, int32[::1])")
def _lay_out(begin, end, ids, offsets, gap, stream):
    for d in range(begin, end):
        start = offsets[d]
        stop = offsets[d + 1] if d + 1 < offsets.size else start
        stream[start + d] = SEPARATOR
        source = ids[start:stop]
        target = stream[start + d + 1 : stop + d + 1]
        for i in range(source.size):
            target[i] = source[i] if source[i] >= 0 else np.int32(gap)


@jit("(int64, int64, int32[::1], int64[::1], uint32[:, ::1])")
def _histogram(begin, end, stream, edges, counts):
    for piece in range(begin, end):
        mine = counts[piece]
        mine[:] = 0
        for i in range(np.uint64(edges[piece]), np.uint64(edges[piece + 1])):
            word = np.uint64(stream[i])  # a separator is huge here
            if word < np.uint64(mine.size):
                mine[word] += np.uint32(1)


@jit("(int64, int64, int32[::1], int64[::1], uint32[:, ::1], uint32[::1])")
def _locate(begin, end, stream, edges, cursors, positions):
    for piece in range(begin, end):
        mine = cursors[piece]
        for i in range(np.uint64(edges[piece]), np.uint64(edges[piece + 1])):
            word = np.uint64(stream[i])
            if word < np.uint64(mine.size):
                positions[np.uint64(mine[word])] = np.uint32(i)
                mine[word] += np.uint32(1)


@jit(
    "(int64, int64, int32[::1], int64[::1], uint32[::1], int64[::1], uint64[::1], boolean, boolean, boolean, "
    "int64[::1], int64[::1], int64[::1], int32[::1], uint64[::1])"
)
def _count(
    begin, end, stream, starts, positions, words, weights, left, right, upper, rows, slots, sizes, indices, counts
):
    width = starts.size - 1
    total = np.zeros(width + 1, np.uint64)  # one more, for gaps
    touched = np.zeros(width // 64 + 1, np.uint64)
    tops = np.zeros(touched.size // 64 + 1, np.uint64)
    before = weights.size if left else 1
    after = weights.size if right else 1
    neighbours = before + after - 2
    for block in range(begin, end):
        slot = slots[block]
        for row in range(rows[block], rows[block + 1]):
            word = words[row]
            first = word if upper else 0
            q, stop = starts[word], starts[word + 1]
            if (stop - q) * neighbours * 2 > width:
                _see(stream, positions, q, stop, weights, before, after, total)
                size = move_all(total, width, first, slot, indices, counts)
            else:
                total[width] = 1  # touched, for all that is seen: not moved out
                _see_touching(stream, positions, q, stop, weights, before, after, total, touched, tops)
                size = move_touched(total, touched, tops, first, slot, indices, counts)
            sizes[row] = size
            slot += size


# The loops over distances are written out four times: helpers that take arrays would count references in them.


@kernel_part
def _see(stream, positions, begin, end, weights, before, after, total):
    """Add the weights of all neighbours of a word's places."""
    for q in range(begin, end):
        ahead = np.int64(positions[min(q + _AHEAD, positions.size - 1)])
        prefetch(stream, ahead - _REACH)
        prefetch(stream, ahead + _REACH)
        place = np.int64(positions[q])
        for distance in range(1, after):
            column = stream[np.uint64(place + distance)]
            if column < 0:  # a separator: the document ends
                break
            total[np.uint64(column)] += weights[np.uint64(distance)]
        for distance in range(1, before):
            column = stream[np.uint64(place - distance)]
            if column < 0:
                break
            total[np.uint64(column)] += weights[np.uint64(distance)]


@kernel_part
def _see_touching(stream, positions, begin, end, weights, before, after, total, touched, tops):
    """The same for a row that is moved out by `move_touched`."""
    for q in range(begin, end):
        ahead = np.int64(positions[min(q + _AHEAD, positions.size - 1)])
        prefetch(stream, ahead - _REACH)
        prefetch(stream, ahead + _REACH)
        place = np.int64(positions[q])
        for distance in range(1, after):
            column = stream[np.uint64(place + distance)]
            if column < 0:
                break
            c = np.uint64(column)
            old = total[c]
            total[c] = old + weights[np.uint64(distance)]
            if old == 0:
                touched[c >> SIX] |= ONE << (c & LOW)
                tops[c >> SIX >> SIX] |= ONE << (c >> SIX & LOW)
        for distance in range(1, before):
            column = stream[np.uint64(place - distance)]
            if column < 0:
                break
            c = np.uint64(column)
            old = total[c]
            total[c] = old + weights[np.uint64(distance)]
            if old == 0:
                touched[c >> SIX] |= ONE << (c & LOW)
                tops[c >> SIX >> SIX] |= ONE << (c >> SIX & LOW)


@jit(
    "(int64, int64, int64[:, ::1], int32[::1], uint64[::1], int64, int64[::1], int64[::1], int64[::1], int32[::1], "
    "uint64[::1], boolean[::1])"
)
def _add(begin, end, begins, columns, values, width, rows, slots, sizes, indices, counts, overflows):
    total = np.zeros(width, np.uint64)
    touched = np.zeros(width // 64 + 1, np.uint64)
    tops = np.zeros(touched.size // 64 + 1, np.uint64)
    for block in range(begin, end):
        slot = slots[block]
        overflow = False
        for row in range(rows[block], rows[block + 1]):
            for k in range(begins.shape[0]):
                overflow |= _add_row(columns, values, begins[k, row], begins[k, row + 1], total, touched, tops)
            sizes[row] = move_touched(total, touched, tops, 0, slot, indices, counts)
            slot += sizes[row]
        overflows[block] = overflow


@kernel_part
def _add_row(columns, values, begin, end, total, touched, tops):
    """Add a row of one matrix; return whether a sum reached 2^64."""
    overflow = False
    for q in range(np.uint64(begin), np.uint64(end)):
        c, value = np.uint64(columns[q]), values[q]
        old = total[c]
        total[c] = old + value
        overflow |= old + value < value
        if old == 0:
            touched[c >> SIX] |= ONE << (c & LOW)
            tops[c >> SIX >> SIX] |= ONE << (c >> SIX & LOW)
    return overflow
