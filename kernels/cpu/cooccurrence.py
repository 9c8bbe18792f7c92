"""Weighted co-occurrence counts of words within a window (the equation: ``reference/cooccurrence.py``).

Schedule: one row of the matrix at a time, in a dense accumulator of all V columns that stays in cache, filled by
visiting the word's occurrences and their neighbours in the stream. A bitmap remembers which columns were touched, and a
second one which words of the first, so that the row comes out sorted and columns that are zero are not looked at. A
block of rows is a task. Bytes: about one cache line of the stream an occurrence, one cached read and write of the
accumulator a neighbour. A hash table would pay a cache miss for each.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from fastnlp._threads import run
from fastnlp.kernels.cpu._jit import jit, kernel_part


def count(stream, starts, positions, weights, both, rows, slots, sizes, indices, counts):
    # (L,), (V + 1,), (T,), (window + 1,), bool, (B + 1,), (B + 1,), (V,), (C,), (C,)
    """Count the rows ``[rows[b], rows[b + 1])`` of every block b.

    Word v stands at ``stream[positions[starts[v]:starts[v + 1]]]``. Block b writes its columns and counts, row after
    row, from ``slots[b]`` on; row r has ``sizes[r]`` of them, in ascending order.
    """
    outputs = (sizes, indices, counts)
    run(_count, rows.size - 1, stream, starts, positions, weights, both, rows, slots, *outputs, grain=1)


@intrinsic
def _lowest_bit(typing_context, word):
    """Return how many zero bits are below the lowest set bit of a word that is not 0."""

    def generate(context, builder, signature, args):
        return builder.cttz(args[0], context.get_constant(types.boolean, True))

    return word(word), generate


# Unsigned indices: signed ones would bring a test for a negative index to every access.
_ONE, _SIX, _LOW = np.uint64(1), np.uint64(6), np.uint64(63)


@jit(
    "(int64, int64, int32[::1], int64[::1], {i}[::1], uint64[::1], boolean, int64[::1], int64[::1], int64[::1], "
    "int32[::1], uint64[::1])"
)
def _count(begin, end, stream, starts, positions, weights, both, rows, slots, sizes, indices, counts):
    vocabulary = starts.size - 1
    total = np.zeros(vocabulary, np.uint64)
    touched = np.zeros(vocabulary // 64 + 1, np.uint64)
    words = np.zeros(touched.size // 64 + 1, np.uint64)
    for block in range(begin, end):
        slot = slots[block]
        for row in range(rows[block], rows[block + 1]):
            for q in range(starts[row], starts[row + 1]):
                _add_side(stream, np.int64(positions[q]), 1, weights, total, touched, words)
                if both:
                    _add_side(stream, np.int64(positions[q]), -1, weights, total, touched, words)
            sizes[row] = _move_out(total, touched, words, indices[slot:], counts[slot:])
            slot += sizes[row]


@njit(inline="always")
def _add_side(stream, position, side, weights, total, touched, words):
    for distance in range(1, weights.size):
        position += side
        column = stream[np.uint64(position)]
        if column < 0:  # a separator: the document ends
            break
        c = np.uint64(column)
        before = total[c]
        if before == 0:
            touched[c >> _SIX] |= _ONE << (c & _LOW)
            words[c >> _SIX >> _SIX] |= _ONE << (c >> _SIX & _LOW)
        total[c] = before + weights[np.uint64(distance)]


@kernel_part
def _move_out(total, touched, words, indices, counts):
    """Move the touched columns out, in ascending order; return how many they are."""
    n = np.uint64(0)
    for top in range(words.size):
        word = words[top]
        words[top] = 0
        while word != 0:
            middle = np.uint64(top) << _SIX | _lowest_bit(word)
            bits = touched[middle]
            touched[middle] = 0
            while bits != 0:
                column = middle << _SIX | _lowest_bit(bits)
                indices[n] = column
                counts[n] = total[column]
                total[column] = 0
                n += _ONE
                bits &= bits - _ONE
            word &= word - _ONE
    return np.int64(n)
