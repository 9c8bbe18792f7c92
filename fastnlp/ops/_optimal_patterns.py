"""Rows as patterns: what column generation works on, to and from the plans of `pack`."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from fastnlp._arrays import Array
from fastnlp.ops._groups import pointer
from fastnlp.ops._pack_plan import Plan, decreasing

Rows = dict[tuple[tuple[int, int], ...], int]
"""Patterns, the longest length first, as pairs of a length's index and its copies; and how often each is repeated."""


class Problem(NamedTuple):
    """Items to pack, ``counts[d]`` of ``sizes[d]`` tokens, increasing; what a row holds; how large a table may be."""

    sizes: Array  # (D,)
    counts: Array  # (D,)
    capacity: int
    max_per_row: int
    cells: int


def first_fit_decreasing(kernels: ModuleType, problem: Problem) -> Rows:
    """Return the rows of first-fit-decreasing."""
    return rows_of(decreasing(kernels, "first_fit_decreasing", *problem[:4]), problem.counts)


def add(rows: Rows, row: Iterable[tuple[int, int]], times: int) -> None:
    key = tuple(sorted(row, reverse=True))
    rows[key] = rows.get(key, 0) + times


def rows_of(plan: Plan, counts: Array) -> Rows:
    lengths = np.searchsorted(np.cumsum(counts), plan.start, "right").tolist()
    copies = plan.copies.tolist()
    rows: Rows = {}
    for (begin, end), times in zip(pairwise(plan.entry_ptr.tolist()), plan.repeats.tolist(), strict=True):
        add(rows, zip(lengths[begin:end], copies[begin:end], strict=True), times)
    return rows


def plan_of(rows: Rows, sizes: Array, counts: Array) -> Plan:
    """Return the plan of `rows`, long items first; the items of each length are dealt in this order."""
    order = sorted(rows, reverse=True)
    repeats = np.array([rows[row] for row in order], np.int64)
    entry_ptr = pointer(np.array([len(row) for row in order], np.int64))
    lengths, copies = np.array([entry for row in order for entry in row], np.int64).T
    dealt = copies * np.repeat(repeats, np.diff(entry_ptr))
    by_length = np.argsort(lengths, kind="stable")
    start = np.empty_like(dealt)
    start[by_length] = np.cumsum(dealt[by_length]) - dealt[by_length]
    tokens = np.add.reduceat(sizes[lengths] * copies, entry_ptr[:-1])
    return Plan(repeats, tokens, entry_ptr, start, np.ascontiguousarray(copies))


def columns_of(rows: Rows, n_lengths: int) -> Any:
    """Return the patterns of `rows` as a sparse matrix by columns, ``(n_lengths, P)``."""
    from scipy.sparse import csc_array

    lengths, copies = np.array([entry for row in rows for entry in row], np.int64).T
    ptr = pointer(np.array([len(row) for row in rows], np.int64))
    return csc_array((copies.astype(np.float64), lengths, ptr), shape=(n_lengths, len(rows)))
