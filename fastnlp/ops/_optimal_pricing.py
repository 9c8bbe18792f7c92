"""Pricing of patterns for column generation: the most valuable ways to fill a row, for given values of the lengths.

A pattern is a row: how many items of each length it has. The knapsacks run in NumPy on every backend: their loops are
over whole tables, and compiling them takes longer than it saves.
"""

from __future__ import annotations

from math import gcd

import numpy as np

from fastnlp._arrays import Array
from fastnlp.kernels.reference import _knapsack as knapsack

_MOST_PATTERNS, _MOST_ENTRIES = 1024, 1 << 22  # that are read from one table


class Pricing:
    """Patterns of at most `capacity` tokens, `max_per_row` items and `counts` copies of the lengths `sizes`.

    Where the table would have more than `cells` cells (pieces, places, tokens), places are not counted: the bound holds
    all the same, and patterns of too many items lose those that are worth least. Where it is still too large, tokens
    are counted in larger units: lengths are rounded up for the patterns, which then fit, and down for the bound.
    """

    def __init__(self, sizes: Array, counts: Array, capacity: int, max_per_row: int, cells: int) -> None:
        common = gcd(*sizes.tolist())
        sizes, capacity = sizes // common, capacity // common
        self.most = np.minimum(np.minimum(counts, capacity // sizes), max_per_row)  # (D,)
        self._max_per_row = max_per_row
        self._lengths, self._copies = _pieces(self.most)
        pieces = self._lengths.size
        binding = max_per_row < _widest(sizes, self.most, capacity)
        counted = binding and pieces * (max_per_row + 1) * (capacity + 1) <= cells
        self._places = self._copies * counted
        unit = max(1, -(-pieces * capacity // cells))
        self._lower, self._upper = sizes // unit, -(-sizes // unit)
        self._exact = unit == 1
        self._table = max_per_row + 1 if counted else 1, capacity // unit + 1

    def best_patterns(self, values: Array) -> tuple[int, Array]:
        """Return what no pattern's value exceeds, the best one's if the table is exact, and patterns, ``(J, D)``.

        These are, for each length, the best pattern that has it, and the best of all.
        """
        rows, tokens = self._table
        take = np.empty((self._lengths.size, rows, tokens), np.bool_)
        best = np.empty(self._table, np.int64)
        limits = []
        for sizes in (self._upper,) if self._exact else (self._lower, self._upper):
            weights = sizes[self._lengths] * self._copies
            knapsack.fill(weights, self._places, values[self._lengths] * self._copies, take, best)
            limits.append(int(best[-1, -1]))

        room = tokens - 1 - self._upper
        forced = np.flatnonzero(room >= 0)
        most = min(_MOST_PATTERNS, _MOST_ENTRIES // values.size)
        if forced.size > most:
            worth = values[forced] + best[max(0, rows - 2), room[forced]]
            forced = np.sort(forced[np.argsort(-worth, kind="stable")[:most]])
        patterns = np.zeros((forced.size + 1, values.size), np.int64)
        patterns[np.arange(forced.size), forced] = 1
        room = np.append(room[forced], tokens - 1)
        knapsack.trace(weights, self._places, self._lengths, self._copies, take, room, patterns)
        patterns = np.minimum(patterns, self.most)
        _cut(patterns, values, self._max_per_row)
        return limits[0], patterns


def _cut(patterns: Array, values: Array, most: int) -> None:
    """Take from patterns of more than `most` items those that are worth least."""
    excess = np.maximum(patterns.sum(axis=1) - most, 0)
    for length in np.argsort(values, kind="stable").tolist() if excess.any() else []:
        taken = np.minimum(excess, patterns[:, length])
        patterns[:, length] -= taken
        excess -= taken


def _widest(sizes: Array, most: Array, capacity: int) -> int:
    """Return how many items a row can have, the shortest ones."""
    tokens = np.cumsum(most * sizes)
    full = int(np.searchsorted(tokens, capacity, "right"))
    items = int(most[:full].sum())
    if full == sizes.size:
        return items
    return items + (capacity - int(tokens[full - 1] if full else 0)) // int(sizes[full])


def _pieces(most: Array) -> tuple[Array, Array]:
    """Return pieces, a length and a number of copies each, from which any number of copies up to `most` can be made."""
    left, copies = most.copy(), 1
    lengths: list[Array] = []
    pieces: list[Array] = []
    while left.any():
        taken = np.minimum(left, copies)
        lengths.append(np.flatnonzero(taken))
        pieces.append(taken[lengths[-1]])
        left -= taken
        copies *= 2
    order = np.argsort(np.concatenate(lengths), kind="stable")
    return np.concatenate(lengths)[order], np.concatenate(pieces)[order]
