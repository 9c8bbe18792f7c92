"""Co-occurrence counts, rows with many pairs: a dense row of integers each, to which all places add at once.

Integers give the same sum in any order, so atomic additions change nothing.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._search import lower_bound
from fastnlp.kernels.cuda.prims import atomic_add, block, blocks, kernel, thread, threads


@kernel("i32* i32* i64* i64* i64* i64 i64* i64 i64 i64 i64 i64 i64*", registers=40)
def add_pairs(
    stream,
    positions,
    ends,  # (R,) the number of places of the rows so far, each with its own
    moves,  # (R,) what is added to the number of a place to find it in `positions`
    words,  # (R,) the least column that counts
    n_rows,  # R
    weights,  # (reach + 1,)
    reach,
    left,  # 0 or 1
    right,  # 0 or 1
    width,  # V
    n,  # places
    totals,  # (R, V) zeros
):
    """Add the weights of all neighbours of each place, a thread a place."""
    i = np.int64(block()) * threads() + thread()
    while i < n:
        row = lower_bound(ends, np.int64(0), n_rows, i + 1)
        place = np.int64(positions[i + moves[row]])
        least, base = words[row], row * width
        side = np.int64(1)
        while side >= -1:
            if (side > 0 and right > 0) or (side < 0 and left > 0):
                distance, open_ = np.int64(1), True
                while open_ and distance <= reach:
                    column = np.int64(stream[place + side * distance])
                    open_ = column >= 0  # a separator: the document ends
                    if column >= least and column < width:
                        atomic_add(totals, base + column, weights[distance])
                    distance += 1
            side -= 2
        i += np.int64(blocks()) * threads()


@kernel("i64* i64 i64* i64 i64* i32* i64*", registers=32)
def move_dense(
    filled,  # (m,) the cells that are not zero
    m,
    totals,  # (R, V)
    width,  # V
    moves,  # (R,) what is added to the number of a cell in `filled` to find its place in the result
    columns,
    counts,
):
    """Write the column and the count of each cell."""
    k = np.int64(block()) * threads() + thread()
    while k < m:
        cell = filled[k]
        row = cell // width
        columns[k + moves[row]] = np.int32(cell - row * width)
        counts[k + moves[row]] = totals[cell]
        k += np.int64(blocks()) * threads()
