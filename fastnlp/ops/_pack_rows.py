"""From sizes of pieces to rows of pieces, for `pack`: by a plan on their histogram, or in their order."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import numpy as np

from fastnlp._arrays import Array
from fastnlp.ops._groups import pointer, sums
from fastnlp.ops._lengths import sort_keys
from fastnlp.ops._pack_plan import Plan, decreasing, lower_bound, with_empty_items
from fastnlp.ops._packing import squares
from fastnlp.ops._shuffle import Shuffle, index_dtype

_PIECES_A_CHUNK = 1 << 17


class Histogram(NamedTuple):
    """How many pieces there are of each size, and what it takes to sort them."""

    keys: Array  # (N,) int32
    chunk_counts: Array  # (chunks, K) int64
    sizes: Array  # (D,) int64, increasing
    counts: Array  # (D,) int64, none 0


class Rows(NamedTuple):
    """Rows of pieces, with their sizes."""

    row_ptr: Array
    pieces: Array  # (N,), row by row
    sizes: Array  # (N,) int32
    row_tokens: Array  # (R,) int64
    row_squares: Array  # (R,) int64


def histogram(kernels: ModuleType, sizes: Array) -> Histogram:
    """Count the sizes of pieces, ``(N,)`` int32."""
    keys, key_sizes = sort_keys(sizes)
    chunks = max(1, keys.size // max(_PIECES_A_CHUNK, 4 * key_sizes.size))
    chunk_counts = np.empty((chunks, key_sizes.size), np.int64)
    kernels.count_keys(keys, chunk_counts)
    counts = chunk_counts.sum(axis=0)
    present = np.flatnonzero(counts)
    return Histogram(keys, chunk_counts, key_sizes[present], counts[present])


def planned(
    kernels: ModuleType, algorithm: str, pieces: Histogram, capacity: int, max_per_row: int, time_limit: float
) -> tuple[Plan, int]:
    """Return the algorithm's plan, and a number of rows that any packing needs at least."""
    sizes, counts = pieces.sizes, pieces.counts
    bound = lower_bound(sizes, counts, capacity, max_per_row)
    if algorithm != "optimal" or not sizes.size or not sizes[-1]:
        by = "first_fit_decreasing" if algorithm == "optimal" else algorithm
        return decreasing(kernels, by, sizes, counts, capacity, max_per_row), bound
    from fastnlp.ops._optimal_plan import optimal_plan

    empty = int(counts[0]) if sizes[0] == 0 else 0
    some = slice(1 if empty else 0, None)
    plan, proven = optimal_plan(kernels, sizes[some], counts[some], capacity, max_per_row, time_limit)
    return with_empty_items(plan, empty, max_per_row) if empty else plan, max(bound, proven)


def rows_of_plan(kernels: ModuleType, plan: Plan, pieces: Histogram, shuffle: Shuffle | None) -> Rows:
    """Deal the pieces, sorted by size, to the rows of a plan; a shuffle is of equal sizes, and of the rows."""
    n = pieces.keys.size
    size_ptr = pointer(pieces.counts)
    by_size = np.empty(n, index_dtype(n))
    kernels.sort_by_key(pieces.keys, None, pieces.chunk_counts, by_size)
    if shuffle is not None:
        shuffle.runs(size_ptr, by_size)
    sizes = pieces.sizes[np.searchsorted(size_ptr, plan.start, "right") - 1]  # of the entries
    squared = sums(plan.copies * sizes**2, plan.entry_ptr)
    width, tokens, squared = (np.repeat(x, plan.repeats) for x in (plan.widths, plan.tokens, squared))
    if shuffle is None:
        row_ptr = pointer(width)
        place = row_ptr[:-1]
    else:
        row_order = shuffle.permutation(width.size, use="rows")
        row_ptr = pointer(width[row_order])
        place = np.empty(row_order.size, np.int64)
        place[row_order] = row_ptr[:-1]
        tokens, squared = tokens[row_order], squared[row_order]
    dealt, dealt_sizes = np.empty_like(by_size), np.empty(n, np.int32)
    kernels.deal(by_size, *plan.rows, sizes, place, dealt, dealt_sizes)
    return Rows(row_ptr, dealt, dealt_sizes, tokens, squared)


def rows_in_order(kernels: ModuleType, sizes: Array, capacity: int, max_per_row: int) -> Rows:
    """Cut the pieces, in their order, into rows: a row ends before the first that does not fit."""
    row_ptr = np.empty(sizes.size + 1, np.int64)
    used = np.empty(1, np.int64)
    kernels.next_fit(sizes, capacity, max_per_row, row_ptr, used)
    row_ptr = row_ptr[: int(used[0]) + 1].copy()
    pieces = np.arange(sizes.size, dtype=index_dtype(sizes.size))
    return Rows(row_ptr, pieces, sizes.copy(), sums(sizes, row_ptr), squares(sizes, row_ptr))
