"""Weighted co-occurrence counts of words within a window, in exact integers.

    X_ij = sum over pairs of positions p < q <= p + window of one document, i = word at p, j = word at q:  weight(q - p)

and, where both sides count, the same from the right: X_ij + X_ji. Weights are integers, so the order of summation does
not matter. The words of all documents stand in one stream with -1 before, between and after the documents.

Schedule: pairs of a block of rows packed into integers (row, column, distance), sorted, and summed by runs; at most
about `PAIRS` of them at once.
"""

from __future__ import annotations

import numpy as np

PAIRS = 1 << 22
_SHIFT = 5  # bits for the distance: windows below 32


def count(stream, starts, positions, weights, both, rows, slots, sizes, indices, counts):
    # (L,), (V + 1,), (T,), (window + 1,), bool, (B + 1,), (B + 1,), (V,), (C,), (C,)
    """Count the rows ``[rows[b], rows[b + 1])`` of every block b.

    Word v stands at ``stream[positions[starts[v]:starts[v + 1]]]``. Block b writes its columns and counts, row after
    row, from ``slots[b]`` on; row r has ``sizes[r]`` of them, in ascending order.
    """
    vocabulary = starts.size - 1
    for block in range(rows.size - 1):
        first, last = int(rows[block]), int(rows[block + 1])
        step = max(1, PAIRS // (weights.size * 2))
        keys, totals = np.empty(0, np.int64), np.empty(0, np.uint64)
        for begin in range(int(starts[first]), int(starts[last]), step):
            at = positions[begin : min(begin + step, int(starts[last]))].astype(np.int64)
            packed = _pairs(stream, at, weights.size - 1, both, first, vocabulary)
            new, sums = _sum_runs(packed >> _SHIFT, weights[packed & ((1 << _SHIFT) - 1)])
            if keys.size:  # a word so frequent that its occurrences come in several parts
                new, sums = np.concatenate([keys, new]), np.concatenate([totals, sums])
                order = np.argsort(new, kind="stable")
                new, sums = _sum_runs(new[order], sums[order])
            keys, totals = new, sums
        sizes[first:last] = np.bincount(keys // vocabulary, minlength=last - first)
        slot = int(slots[block])
        indices[slot : slot + keys.size] = keys % vocabulary
        counts[slot : slot + keys.size] = totals


def _pairs(stream, at, window, both, first, vocabulary):
    """Return the pairs of the words at `at`, sorted, as ``((row - first) V + column) 32 + distance``."""
    row = (stream[at].astype(np.int64) - first) * vocabulary
    parts = []
    for side in (1, -1) if both else (1,):
        place, key = at, row
        for distance in range(1, window + 1):
            place = place + side
            column = stream[place]
            inside = column >= 0  # a separator ends the document: nothing farther on this side counts
            place, key, column = place[inside], key[inside], column[inside]
            parts.append(((key + column) << _SHIFT) + distance)
    packed = np.concatenate(parts)
    packed.sort()
    return packed


def _sum_runs(keys, values):
    """Return the distinct ones of sorted `keys`, and the sum of each one's values."""
    if not keys.size:
        return keys, values
    begins = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[begins], np.add.reduceat(values, begins)
