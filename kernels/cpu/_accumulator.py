"""A row of a sparse matrix summed in a dense row of integers, and moved out in ascending order.

A row that many numbers are added to is looked through from end to end. For one with few of them a bitmap remembers
which columns were touched, and a second one which words of the first, so that columns that are zero are not looked at:
who adds to a column c that is 0 sets bit ``c & LOW`` of ``touched[c >> SIX]``, and that word's bit in ``tops``.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import intrinsic

from fastnlp.kernels.cpu._jit import kernel_part


@intrinsic
def _lowest_bit(typing_context, word):
    """Return how many zero bits are below the lowest set bit of a word that is not 0."""

    def generate(context, builder, signature, args):
        return builder.cttz(args[0], context.get_constant(types.boolean, True))

    return word(word), generate


# Unsigned indices: signed ones would bring a test for a negative index to every access.
ONE, SIX, LOW = np.uint64(1), np.uint64(6), np.uint64(63)


@kernel_part
def move_all(total, width, first, slot, indices, counts):
    """Move the columns in [first, width) that are not 0 out from `slot` on, clear those below; return how many."""
    for c in range(np.uint64(first)):
        total[c] = 0
    n = np.uint64(slot)
    for c in range(np.uint64(first), np.uint64(width)):
        value = total[c]
        indices[n] = c  # overwritten by the next unless it stays: no branch
        counts[n] = value
        total[c] = 0
        n += np.uint64(value != 0)
    return np.int64(n) - slot


@kernel_part
def move_touched(total, touched, tops, first, slot, indices, counts):
    """Move the touched columns from `first` on that are not 0 out from `slot` on, clear the others; return how many."""
    n = np.uint64(slot)
    for top in range(tops.size):
        word = tops[top]
        tops[top] = 0
        while word != 0:
            middle = np.uint64(top) << SIX | _lowest_bit(word)
            bits = touched[middle]
            touched[middle] = 0
            while bits != 0:
                column = middle << SIX | _lowest_bit(bits)
                value = total[column]
                total[column] = 0
                if column >= np.uint64(first) and value != 0:
                    indices[n] = column
                    counts[n] = value
                    n += ONE
                bits &= bits - ONE
            word &= word - ONE
    return np.int64(n) - slot
