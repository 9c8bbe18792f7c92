"""Packing into nearly as few rows as possible: column generation on the histogram of lengths, then diving.

The relaxation's solution says how often each pattern is used. Its whole parts are rows; what they leave, at most a row
or so for each length, is a small packing problem of its own: its relaxation is solved again, and if no pattern is used
once or more, the most used one is a row, until nothing is left.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import pairwise
from types import ModuleType

import numpy as np

from fastnlp._arrays import Array
from fastnlp.ops._groups import pointer
from fastnlp.ops._pack_plan import Plan, decreasing, lower_bound
from fastnlp.ops._relaxation import Relaxation

_DIVES = ((0.1, 0.5), (0.03, 0.7), (0.3, 0.4))  # share of what is left to round up at once, and from which fraction on
_TIME_OF_RELAXATION = 0.6

Rows = dict[tuple[tuple[int, int], ...], int]
"""Patterns, the longest length first, as pairs of a length's index and its copies; and how often each is repeated."""


def optimal_plan(
    kernels: ModuleType, sizes: Array, counts: Array, capacity: int, max_per_row: int, time_limit: float
) -> tuple[Plan, int]:
    """Return a plan and a proven lower bound on the rows of any plan; never more rows than first-fit-decreasing.

    The same result again, unless the time limit is reached.

    Parameters
    ----------
    sizes, counts
        ``(D,)`` int64: ``counts[d] > 0`` items of ``sizes[d]`` tokens, 1 to `capacity`, increasing.
    max_per_row
        The most items of a row.
    time_limit
        Seconds after which the best plan so far is returned.

    References
    ----------
    P. C. Gilmore and R. E. Gomory, "A linear programming approach to the cutting-stock problem", Operations Research 9,
    1961. A. A. Farley, "A note on bounding a class of linear programming problems", Operations Research 38, 1990. A.
    Pessoa et al., "Automation and combination of linear-programming based stabilization techniques in column
    generation", INFORMS Journal on Computing 30, 2018 (smoothed dual values).
    """
    begin = time.monotonic()
    plan = decreasing(kernels, "first_fit_decreasing", sizes, counts, capacity, max_per_row)
    rows = int(plan.repeats.sum())
    bound = lower_bound(sizes, counts, capacity, max_per_row)
    if rows == bound:
        return plan, bound
    search = _Search(kernels, sizes, counts, capacity, max_per_row, plan, bound, begin + time_limit)
    search.run(begin + _TIME_OF_RELAXATION * time_limit)
    if search.rows == rows:
        return plan, search.bound
    return _plan_of(search.best, sizes, counts), search.bound


class _Search:
    """The best packing so far, and the bound on what is possible."""

    def __init__(
        self,
        kernels: ModuleType,
        sizes: Array,
        counts: Array,
        capacity: int,
        max_per_row: int,
        plan: Plan,
        bound: int,
        deadline: float,
    ) -> None:
        self._kernels = kernels
        self._problem = sizes, counts, capacity, max_per_row
        self._deadline = deadline
        self.best = _rows_of(plan, counts)
        self.rows = sum(self.best.values())
        self.bound = bound

    def run(self, deadline: float) -> None:
        """Solve the relaxation, by `deadline` at the latest, and dive until its bound is reached."""
        from scipy.sparse import csc_array

        sizes, counts, capacity, max_per_row = self._problem
        entries = [(d, p, k) for p, row in enumerate(self.best) for d, k in row]
        d, p, k = np.array(entries, np.int64).T
        columns = csc_array((k.astype(np.float64), (d, p)), shape=(sizes.size, len(self.best)))
        root = Relaxation(sizes, counts, capacity, max_per_row, columns, sizes / capacity)
        self.bound = max(self.bound, root.bound)
        if self.bound < self.rows:
            root.solve(0, deadline)
            self.bound = max(self.bound, root.bound)
        for share, least in _DIVES:
            if root.x is None or self.rows == self.bound or time.monotonic() > self._deadline:
                return
            found = self._dive(root, share, least)
            if sum(found.values()) < self.rows:
                self.best, self.rows = found, sum(found.values())

    def _dive(self, relaxation: Relaxation, share: float, least: float) -> Rows:
        """Return a packing by rounding the relaxation's solution, again and again on what is left."""
        found: Rows = {}
        lengths = np.arange(relaxation.sizes.size)
        while True:
            left = _round(relaxation, lengths, share, least, found)
            if not left.any():
                return found
            lengths = lengths[left > 0]
            rows = sum(found.values())
            relaxation = relaxation.restrict(left)
            relaxation.solve(self.bound - rows, self._deadline)
            if relaxation.x is None or rows + relaxation.bound >= self.rows:
                break
        _, _, capacity, max_per_row = self._problem
        plan = decreasing(
            self._kernels, "first_fit_decreasing", relaxation.sizes, relaxation.counts, capacity, max_per_row
        )
        for row, times in _rows_of(plan, relaxation.counts).items():
            _add(found, [(int(lengths[d]), k) for d, k in row], times)
        return found


def _round(relaxation: Relaxation, lengths: Array, share: float, least: float, found: Rows) -> Array:
    """Add rows to `found`: the solution's whole parts, and its largest fractions rounded up. Return what is left."""
    columns, x = relaxation.columns, relaxation.x
    assert x is not None
    left = relaxation.counts.copy()
    whole = np.floor(x + 1e-9)
    fraction = x - whole
    most_up = max(1, int(share * fraction.sum()))
    order = np.argsort(-whole, kind="stable")[: np.count_nonzero(whole)].tolist()
    up = np.argsort(-fraction, kind="stable").tolist()
    n_rows = n_up = 0
    for k, j in enumerate(order + up):
        rounded_up = k >= len(order)
        if rounded_up and (n_up == most_up or fraction[j] < 1e-6 or (n_rows and fraction[j] < least)):
            break
        entries = slice(columns.indptr[j], columns.indptr[j + 1])
        d, copies = columns.indices[entries], columns.data[entries].astype(np.int64)
        d, copies = d[copies > 0], copies[copies > 0]
        times = min(
            int((left[d] // copies).min(initial=0 if not d.size else left.max())), 1 if rounded_up else int(whole[j])
        )
        if times:
            left[d] -= times * copies
            _add(found, zip(lengths[d].tolist(), copies.tolist(), strict=True), times)
            n_rows += times
            n_up += rounded_up
    return left


def _add(rows: Rows, row: Iterable[tuple[int, int]], times: int) -> None:
    key = tuple(sorted(row, reverse=True))
    rows[key] = rows.get(key, 0) + times


def _rows_of(plan: Plan, counts: Array) -> Rows:
    lengths = np.searchsorted(np.cumsum(counts), plan.start, "right").tolist()
    copies = plan.copies.tolist()
    rows: Rows = {}
    for (begin, end), times in zip(pairwise(plan.entry_ptr.tolist()), plan.repeats.tolist(), strict=True):
        _add(rows, zip(lengths[begin:end], copies[begin:end], strict=True), times)
    return rows


def _plan_of(rows: Rows, sizes: Array, counts: Array) -> Plan:
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
