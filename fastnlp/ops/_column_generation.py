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
from typing import NamedTuple

import numpy as np

from fastnlp._arrays import Array
from fastnlp.ops._groups import pointer
from fastnlp.ops._pack_plan import Plan, decreasing, lower_bound
from fastnlp.ops._relaxation import Relaxation

_DIVES = ((0.1, 0.5), (0.03, 0.7), (0.3, 0.4))  # share of what is left to round up at once, and from which fraction on
_TIME_OF_RELAXATION = 0.6
_NODES = 200  # problems of a dive
_WAYS = 3  # in which one is rounded

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
            if root.x is not None and self.bound < self.rows:
                self._dive(root, share, least)

    def _dive(self, root: Relaxation, share: float, least: float) -> None:
        """Round the relaxation's solution, again and again on what is left; where that fails, round another way."""
        nodes = [_Node(root, np.arange(root.sizes.size), {}, 0)]
        for _ in range(_NODES):
            if not nodes or self.rows == self.bound or time.monotonic() > self._deadline:
                return
            node = nodes.pop()
            left, found, n_up = _rounded(node, share, least)
            if n_up and node.skip < _WAYS - 1:
                nodes.append(node._replace(skip=node.skip + 1))
            rows = sum(found.values())
            if not left.any():
                self._keep(found)
            elif rows > node.rows:
                rest = node.relaxation.restrict(left)
                rest.solve(self.bound - rows, self._deadline)
                if rest.x is None:
                    self._keep(self._completed(rest, node.lengths[left > 0], found))
                elif rows + rest.bound < self.rows:
                    nodes.append(_Node(rest, node.lengths[left > 0], found, 0))

    def _completed(self, rest: Relaxation, lengths: Array, found: Rows) -> Rows:
        """Return `found` and the rows of first-fit-decreasing for the rest."""
        _, _, capacity, max_per_row = self._problem
        plan = decreasing(self._kernels, "first_fit_decreasing", rest.sizes, rest.counts, capacity, max_per_row)
        for row, times in _rows_of(plan, rest.counts).items():
            _add(found, [(int(lengths[d]), k) for d, k in row], times)
        return found

    def _keep(self, found: Rows) -> None:
        rows = sum(found.values())
        if rows < self.rows:
            self.best, self.rows = found, rows


class _Node(NamedTuple):
    """A problem that is left where the rows `found` are taken out, and how many ways of rounding up were tried."""

    relaxation: Relaxation
    lengths: Array  # of the whole problem, (D,)
    found: Rows
    skip: int

    @property
    def rows(self) -> int:
        return sum(self.found.values())


def _rounded(node: _Node, share: float, least: float) -> tuple[Array, Rows, int]:
    """Take the solution's whole parts as rows, and its largest fractions rounded up.

    Return the counts that are left, all rows found, and how many fractions were rounded up.
    """
    columns, x = node.relaxation.columns, node.relaxation.x
    assert x is not None
    left, found = node.relaxation.counts.copy(), dict(node.found)
    whole = np.floor(x + 1e-9)
    fraction = x - whole
    most_up = max(1, int(share * fraction.sum()))
    down = np.argsort(-whole, kind="stable")[: np.count_nonzero(whole)].tolist()
    up = np.argsort(-fraction, kind="stable")[node.skip :].tolist()
    n_down = n_up = 0
    for j in down + up:
        rounds_up = n_down == len(down)
        if rounds_up and (n_up == most_up or fraction[j] < 1e-6 or (fraction[j] < least and (n_up or down))):
            break
        n_down += not rounds_up
        entries = slice(columns.indptr[j], columns.indptr[j + 1])
        d, copies = columns.indices[entries], columns.data[entries].astype(np.int64)
        times = min(int((left[d] // copies).min()), 1 if rounds_up else int(whole[j]))
        if times:
            left[d] -= times * copies
            _add(found, zip(node.lengths[d].tolist(), copies.tolist(), strict=True), times)
            n_up += rounds_up
    return left, found, n_up


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
