"""Co-occurrence counts, rows with few pairs: pairs as numbers, sorted, and summed by runs of equal ones.

A pair is (row V + column) 2^shift + distance. Sums of the weights of all pairs so far, modulo 2^64, stand at each pair;
the sum of a run is a difference of two of them, which is exact.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._search import lower_bound
from fastnlp.kernels.cuda.prims import block, blocks, kernel, thread, threads

_NO_PAIR = np.int64(2**63 - 1)  # comes last
_NOTHING = np.int64(0)


@kernel("i32* i32* i64* i64* i64* i64 i64* i64 i64 i64 i64 i64 i64 i64*", registers=64)
def list_pairs(
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
    shift,
    n,  # places
    pairs,  # ((left + right) reach, n)
):
    """Write the pairs of each place, a thread a place, next to those of its neighbours with the same distance."""
    i = np.int64(block()) * threads() + thread()
    while i < n:
        row = lower_bound(ends, np.int64(0), n_rows, i + 1)
        place = np.int64(positions[i + moves[row]])
        least, to = words[row], i
        side = np.int64(1)
        while side >= -1:
            if (side > 0 and right > 0) or (side < 0 and left > 0):
                distance, open_ = np.int64(1), True
                while distance <= reach:
                    pair = _NO_PAIR
                    if open_:
                        column = np.int64(stream[place + side * distance])
                        open_ = column >= 0  # a separator: the document ends
                        if column >= least and column < width and weights[distance] != 0:
                            pair = ((row * width + column) << shift) + distance
                    pairs[to] = pair
                    to += n
                    distance += 1
            side -= 2
        i += np.int64(blocks()) * threads()


@kernel("i64* i64 i64 i64* u8* i64*", registers=32)
def mark_runs(
    pairs,  # (n,) ascending
    n,
    shift,
    weights,
    heads,  # (n,) whether a run begins
    amounts,  # (n,)
):
    """Tell where runs of equal rows and columns begin, and the weight of each pair."""
    i = np.int64(block()) * threads() + thread()
    while i < n:
        pair = pairs[i]
        there = pair != _NO_PAIR
        heads[i] = there and (i == 0 or (pairs[i - 1] >> shift) != (pair >> shift))
        amounts[i] = weights[pair & ((np.int64(1) << shift) - 1)] if there else _NOTHING
        i += np.int64(blocks()) * threads()


@kernel("i64* i64* i64 i64* i64 i64 i64 i64* i32* i64*", registers=40)
def move_runs(
    pairs,  # (m,) the first of each run
    begins,  # (m,)
    m,
    sums,  # (n,) of amounts
    n,
    shift,
    width,  # V
    moves,  # (R,) what is added to the number of a run to find its place in the result
    columns,
    counts,
):
    """Write the column and the count of each run."""
    k = np.int64(block()) * threads() + thread()
    while k < m:
        row = (pairs[k] >> shift) // width
        to = k + moves[row]
        columns[to] = np.int32((pairs[k] >> shift) - row * width)
        before = sums[begins[k] - 1] if begins[k] > 0 else _NOTHING
        counts[to] = sums[begins[k + 1] - 1 if k + 1 < m else n - 1] - before
        k += np.int64(blocks()) * threads()
