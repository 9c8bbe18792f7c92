"""Rows of a matrix that have the largest cosines with given directions: found in float32, decided in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
Found = tuple[Rows, Floats]  # rows and their scores, the largest first; equal scores in the order of the rows

_ROWS = 1 << 14  # rows that are widened to float64 at a time
_CELLS = 1 << 24  # cosines that are held at a time
_CHUNKS = 128  # rows of which the largest cosine stands for all
_NEAR_ONE = 1e15  # vectors longer than this, or shorter than its inverse, are left to float64
_EPSILON = 1e-3  # of 3CosMul


class Neighbours:
    """Finds rows of ``(V, D)`` vectors. The cosine with a vector of zeros is 0; rows that are not finite are not found.

    A cosine in float32 is off by at most about D units of its last place. Rows that may be among the first for all that
    are computed again in float64: what is found depends neither on the product nor on the number of its threads.
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self._vectors = vectors
        self._rounding = (vectors.shape[1] + 8) * float(np.finfo(np.float32).eps)
        self._lengths = np.sqrt(_by_rows(lambda x: (x * x).sum(axis=1), vectors, None))
        finite = np.isfinite(self._lengths)
        fair = finite & (self._lengths < _NEAR_ONE) & ((self._lengths > 1 / _NEAR_ONE) | (self._lengths == 0))
        self._not_finite = np.flatnonzero(~finite)
        self._unfair = np.flatnonzero(finite & ~fair)
        self._scale = np.divide(1, self._lengths, out=np.zeros(len(vectors)), where=fair & (self._lengths > 0)).astype(
            np.float32
        )

    def by_sums(self, queries: Floats, excluded: Sequence[list[int]], topn: int) -> Iterator[Found]:
        """Yield, for each query ``(B, D)`` of length 1, the `topn` rows with the largest cosines but those excluded."""
        step = max(1, _CELLS // len(self._vectors))
        for begin in range(0, len(queries), step):
            block = queries[begin : begin + step]
            for near, query, rows in zip(self._cosines(block), block, excluded[begin : begin + step], strict=True):
                yield self._best(near, near + self._rounding, partial(self._exactly, query), rows, topn)

    def by_products(self, positive: Floats, negative: Floats, excluded: list[int], topn: int) -> Found:
        """Return rows by the product of ``(1 + cos) / 2`` over `positive`, divided by 0.001 + that over `negative`."""
        near = self._cosines(np.concatenate([positive, negative])).astype(np.float64)
        high, low = np.clip(near + self._rounding, -1, None), np.clip(near - self._rounding, -1, None)

        def exactly(at: Rows) -> Floats:
            return _ratio([self._exactly(x, at) for x in positive], [self._exactly(x, at) for x in negative])

        n = len(positive)
        return self._best(_ratio(low[:n], high[n:]), _ratio(high[:n], low[n:]), exactly, excluded, topn)

    def _cosines(self, queries: Floats) -> NDArray[np.float32]:
        """Return cosines ``(B, V)``; of rows that are not finite, or left to float64, anything."""
        with np.errstate(all="ignore"):
            near = queries.astype(np.float32) @ self._vectors.T
            near *= self._scale
        return near

    def _exactly(self, query: Floats, rows: Rows) -> Floats:
        products = _by_rows(lambda x: (x * query).sum(axis=1), self._vectors, rows)
        lengths = self._lengths[rows]
        return np.clip(np.divide(products, lengths, out=np.zeros(len(rows)), where=lengths != 0), -1, 1)

    def _best(
        self,
        low: NDArray[Any],
        high: NDArray[Any],
        exactly: Callable[[Rows], Floats],
        excluded: list[int],
        topn: int,
    ) -> Found:
        """Return the best rows by scores that lie between `low` and `high`, which are written to."""
        left_out = np.union1d(self._not_finite, np.array(excluded, np.intp))
        topn = min(topn, len(low) - len(left_out))
        low[self._unfair], high[self._unfair] = -np.inf, np.inf
        low[left_out], high[left_out] = -np.inf, -np.inf
        if topn == 0:
            return np.empty(0, np.intp), np.empty(0)
        rows = np.flatnonzero((high >= _at_most_the_largest(low, topn)) & (high > -np.inf))
        scores = exactly(rows)
        order = np.lexsort((rows, -scores))[:topn]
        return rows[order], scores[order]


def _at_most_the_largest(x: NDArray[Any], n: int) -> float:
    """Return a number that at least n of x are not below, and not many more."""
    chunk = len(x) // _CHUNKS
    if chunk > 4 * n:
        x = x[: chunk * _CHUNKS].reshape(_CHUNKS, chunk).max(axis=0)
    return float(np.partition(x, len(x) - n)[len(x) - n])


def _ratio(positive: Sequence[Floats] | Floats, negative: Sequence[Floats] | Floats) -> Floats:
    def product(cosines: Sequence[Floats] | Floats) -> Any:
        return np.prod([(1 + cosine) / 2 for cosine in cosines], axis=0)

    return np.asarray(product(positive) / (product(negative) + _EPSILON))


def _by_rows(function: Callable[[Floats], Floats], vectors: NDArray[np.float32], rows: Rows | None) -> Floats:
    """Return a function of each row (or of those chosen), computed in float64 some rows at a time."""
    n = len(vectors) if rows is None else len(rows)
    out = np.empty(n)
    with np.errstate(invalid="ignore"):
        for begin in range(0, n, _ROWS):
            part = slice(begin, begin + _ROWS)
            out[part] = function(vectors[part if rows is None else rows[part]].astype(np.float64))
    return out
