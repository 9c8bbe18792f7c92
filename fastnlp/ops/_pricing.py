"""Pricing of patterns for column generation: the most valuable ways to fill a row, for given values of the lengths.

A pattern is a row: how many items of each length it has. The knapsacks are loops over pieces of whole tables in NumPy
on every backend: compiled, they make the search no faster than it is long to compile them.
"""

from __future__ import annotations

from math import gcd

import numpy as np

from fastnlp._arrays import Array
from fastnlp.kernels.reference import _knapsack as knapsack

_CELLS = 1 << 27  # of a table of (pieces, places, tokens): a tenth of a second and 128 MiB
_MOST_PATTERNS = 1024  # that are read from one table


class Pricing:
    """Patterns of at most `capacity` tokens, `max_per_row` items and `counts` copies of the lengths `sizes`.

    Where the table would be too large, tokens are counted in larger units: lengths are rounded up for the patterns,
    which then fit, and rounded down for the bound, which then holds.
    """

    def __init__(self, sizes: Array, counts: Array, capacity: int, max_per_row: int) -> None:
        common = gcd(*sizes.tolist())
        sizes, capacity = sizes // common, capacity // common
        self.most = np.minimum(np.minimum(counts, capacity // sizes), max_per_row)  # (D,)
        self._lengths, self._copies = _pieces(self.most)
        counted = max_per_row < capacity // int(sizes[0])
        self._places = self._copies * counted
        rows = max_per_row + 1 if counted else 1
        unit = max(1, -(-self._lengths.size * rows * capacity // _CELLS))
        self._exact = unit == 1
        self._lower, self._upper = sizes // unit, -(-sizes // unit)
        tokens = capacity // unit + 1
        self._take = np.empty((self._lengths.size, rows, tokens), np.bool_)
        self._best = np.empty((rows, tokens), np.int64)

    def best_patterns(self, values: Array) -> tuple[int, Array]:
        """Return a bound on the value of any pattern, the best one's where the unit is 1, and patterns, ``(J, D)``.

        These are, for each length, the best pattern that has it, and the best of all.
        """
        if not self._exact:
            self._fill(self._lower, values)
        else:
            self._fill(self._upper, values)
        bound = int(self._best[-1, -1])
        if not self._exact:
            self._fill(self._upper, values)

        rows, tokens = self._best.shape
        room = tokens - 1 - self._upper
        forced = np.flatnonzero(room >= 0)
        if forced.size > _MOST_PATTERNS:
            worth = values[forced] + self._best[max(0, rows - 2), room[forced]]
            forced = np.sort(forced[np.argsort(-worth, kind="stable")[:_MOST_PATTERNS]])
        patterns = np.zeros((forced.size + 1, values.size), np.int64)
        patterns[np.arange(forced.size), forced] = 1
        knapsack.trace(
            self._upper[self._lengths] * self._copies,
            self._places,
            self._lengths,
            self._copies,
            self._take,
            np.append(room[forced], tokens - 1),
            patterns,
        )
        return bound, np.minimum(patterns, self.most)

    def _fill(self, sizes: Array, values: Array) -> None:
        weights = sizes[self._lengths] * self._copies
        knapsack.fill(weights, self._places, values[self._lengths] * self._copies, self._take, self._best)


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
