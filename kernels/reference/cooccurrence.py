"""Weighted co-occurrence counts of words within a window, in exact integers.

    X_ij = sum over pairs of positions p < q <= p + window of one document, i = word at p, j = word at q:  weight(q - p)

where the words to the right of a word are counted; where those to its left are, the same from the right: X_ji. Weights
are integers, so the order of summation does not matter. The words of all documents stand in one stream with a separator
before, between and after the documents; a gap, which is no word but keeps its place, stands there as V.

Schedule: pairs of some places of the words of a block, packed into integers (row, column, distance), sorted, and summed
by runs; at most about `PAIRS` of them at once.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

PAIRS = 1 << 22
SEPARATOR = -1
_KEYS = 1 << 62


def lay_out(ids, offsets, gap, stream):  # (T,), (D + 1,), int, (T + D + 1,)
    """Write the documents to the stream with a separator before, between and after them, and `gap` for ids of -1."""
    stream[:] = np.insert(np.where(ids < 0, np.int32(gap), ids), offsets, np.int32(SEPARATOR))


def histogram(stream, edges, counts):  # (L,), (P + 1,), (P, V)
    """Count each word in every piece ``stream[edges[p]:edges[p + 1]]``."""
    for piece, words in enumerate(_pieces(stream, edges)):
        counts[piece] = np.bincount(words[(words >= 0) & (words < counts.shape[1])], minlength=counts.shape[1])


def locate(stream, edges, cursors, positions):  # (L,), (P + 1,), (P, V), (T,)
    """Write where the words stand: those of piece p that are word v from ``positions[cursors[p, v]]`` on.

    The cursors are moved to behind what is written.
    """
    for piece, words in enumerate(_pieces(stream, edges)):
        places = np.flatnonzero((words >= 0) & (words < cursors.shape[1]))
        places = places[np.argsort(words[places], kind="stable")]
        words = words[places]
        before = np.arange(places.size) - np.searchsorted(words, words)  # how many of the same word
        positions[cursors[piece, words] + before] = places + edges[piece]
        cursors[piece] += np.bincount(words, minlength=cursors.shape[1]).astype(cursors.dtype)


def count(stream, starts, positions, words, weights, left, right, upper, rows, slots, sizes, indices, counts):
    # (L,), (V + 1,), (T,), (R,), (window + 1,), bool, bool, bool, (B + 1,), (B + 1,), (R,), (C,), (C,)
    """Count the rows ``[rows[b], rows[b + 1])`` of every block b.

    Row r is of word ``words[r]``; word v stands at ``stream[positions[starts[v]:starts[v + 1]]]``. The words to its
    `left` and to its `right` are counted, with `upper` only columns from the word itself on. Block b writes its columns
    and counts, row after row, from ``slots[b]`` on; row r has ``sizes[r]`` of them, in ascending order. What comes
    after them is overwritten: a row takes one entry more than it can have.
    """
    vocabulary, window = starts.size - 1, weights.size - 1
    shift = int(window).bit_length()
    most_rows = max(1, _KEYS // (vocabulary + 1 << shift))  # whose keys fit in an integer
    sides = (1,) * bool(right) + (-1,) * bool(left)
    step = max(1, PAIRS // (window * len(sides)))
    for block in range(rows.size - 1):
        slot = int(slots[block])
        for first in range(int(rows[block]), int(rows[block + 1]), most_rows):
            last = min(first + most_rows, int(rows[block + 1]))
            begins, occurrences = starts[words[first:last]], np.diff(starts)[words[first:last]]
            ends = np.cumsum(occurrences)
            keys, totals = np.empty(0, np.int64), np.empty(0, np.uint64)
            for begin in range(0, int(occurrences.sum()), step):
                wanted = np.arange(begin, min(begin + step, int(ends[-1])))
                row = np.searchsorted(ends, wanted, side="right")
                at = positions[begins[row] + wanted - (ends - occurrences)[row]].astype(np.int64)
                packed = _pairs(stream, at, row * vocabulary, sides, window, vocabulary, shift)
                new, sums = _sum_runs(packed >> shift, weights[packed & ((1 << shift) - 1)])
                keys, totals = _merge(keys, totals, new, sums)  # a frequent word's places come in several parts
            row, column = np.divmod(keys, max(vocabulary, 1))
            kept = totals != 0
            if upper:
                kept &= column >= words[first + row]
            row, column, totals = row[kept], column[kept], totals[kept]
            sizes[first:last] = np.bincount(row, minlength=last - first)
            indices[slot : slot + column.size] = column
            counts[slot : slot + column.size] = totals
            slot += column.size


def add(begins, columns, values, width, rows, slots, sizes, indices, counts, overflows):
    # (K, R + 1), (E,), (E,), int, (B + 1,), (B + 1,), (R,), (C,), (C,), (B,)
    """Add K matrices row by row: row r of the k-th is ``columns`` and ``values`` in [begins[k, r], begins[k, r + 1]).

    Blocks, slots and sizes as in `count`. ``overflows[b]`` tells whether a sum of block b reached 2^64.
    """
    for block in range(rows.size - 1):
        first, last = int(rows[block]), int(rows[block + 1])
        keys, totals = np.empty(0, np.int64), np.empty(0, np.uint64)
        overflows[block] = False
        for begin in begins:
            mine = slice(int(begin[first]), int(begin[last]))
            row = np.repeat(np.arange(last - first), np.diff(begin[first : last + 1]))
            new = row * width + columns[mine]
            before = np.zeros(new.size, np.uint64)
            _, here, there = np.intersect1d(new, keys, assume_unique=True, return_indices=True)
            before[here] = totals[there]
            overflows[block] |= bool((before + values[mine] < before).any())
            keys, totals = _merge(keys, totals, new, values[mine])
        sizes[first:last] = np.bincount(keys // max(width, 1), minlength=last - first)
        slot = int(slots[block])
        indices[slot : slot + keys.size] = keys % max(width, 1)
        counts[slot : slot + keys.size] = totals


def _pieces(stream, edges):
    return [stream[begin:end] for begin, end in pairwise(edges)]


def _pairs(stream, at, key, sides, window, gap, shift):
    """Return the pairs of the words at `at`, sorted, as ``(key + column) 2^shift + distance``."""
    parts = [np.empty(0, np.int64)]
    for side in sides:
        place, base = at, key
        for distance in range(1, window + 1):
            place = place + side
            column = stream[place]
            inside = column >= 0  # a separator ends the document: nothing farther on this side counts
            place, base, column = place[inside], base[inside], column[inside]
            parts.append(((base + column)[column < gap] << shift) + distance)
            if not place.size:
                break
    packed = np.concatenate(parts)
    packed.sort()
    return packed


def _merge(keys, totals, more_keys, more_totals):
    """Return the sum of two sorted lists of keys and totals."""
    if not keys.size:
        return more_keys, more_totals
    keys, totals = np.concatenate([keys, more_keys]), np.concatenate([totals, more_totals])
    order = np.argsort(keys, kind="stable")
    return _sum_runs(keys[order], totals[order])


def _sum_runs(keys, values):
    """Return the distinct ones of sorted `keys`, and the sum of each one's values."""
    if not keys.size:
        return keys, values
    begins = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[begins], np.add.reduceat(values, begins)
