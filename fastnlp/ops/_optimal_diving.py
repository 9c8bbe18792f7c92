"""Packings by rounding the relaxation's solution.

The relaxation's solution says how often each pattern is used. Its whole parts are rows; what they leave, at most a row
or so for each length, is a small packing problem of its own: its relaxation is solved again, and if no pattern is used
once or more, the most used ones are rows, until nothing is left.
"""

from __future__ import annotations

import time
from types import ModuleType
from typing import NamedTuple

import numpy as np

from fastnlp._arrays import Array
from fastnlp.ops._optimal_patterns import Problem, Rows, add, columns_of, first_fit_decreasing
from fastnlp.ops._optimal_relaxation import Relaxation

_DIVES = ((0.1, 0.5), (0.03, 0.7), (0.3, 0.4))  # share of what is left to round up at once, and from which fraction on
_MOST_LENGTHS = 8192  # else only the bound is computed
_TIME_OF_RELAXATION = 0.6
_NODES = 200  # problems of a dive
_WAYS = 3  # in which one is rounded


class Search:
    """The search for a packing of `problem` in fewer rows than `best`, which is one already.

    Attributes
    ----------
    best, rows
        The best packing so far and its number of rows.
    bound
        No packing has fewer rows: proven.
    values
        Of the lengths, by which it is proven.
    """

    def __init__(self, kernels: ModuleType, problem: Problem, best: Rows, bound: int, values: Array) -> None:
        self._kernels = kernels
        self._problem = problem
        self.best = best
        self.rows = sum(best.values())
        self.bound = bound
        self.values = values
        self._deadline = 0.0

    def run(self, time_limit: float) -> None:
        """Solve the relaxation and dive, until the bound or the limit, in seconds, is reached."""
        begin = time.monotonic()
        self._deadline = begin + time_limit
        root = Relaxation(self._problem, columns_of(self.best, self._problem.sizes.size), self.values)
        if max(self.bound, root.bound) < self.rows and self._problem.sizes.size <= _MOST_LENGTHS:
            root.solve(0, begin + _TIME_OF_RELAXATION * time_limit)
        self.bound = max(self.bound, root.bound)
        self.values = root.values
        for share, least in _DIVES:
            if root.x is not None and self.bound < self.rows and time.monotonic() < self._deadline:
                self._dive(root, share, least)

    def _dive(self, root: Relaxation, share: float, least: float) -> None:
        """Round the relaxation's solution, again and again on what is left; where that fails, round another way."""
        nodes = [_Node(root, np.arange(root.problem.sizes.size), {}, 0)]
        for _ in range(_NODES):
            if not nodes or self.rows == self.bound:
                return
            node = nodes.pop()
            if time.monotonic() > self._deadline:
                self._keep(self._completed(node.relaxation, node.lengths, dict(node.found)))
                return
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
        for row, times in first_fit_decreasing(self._kernels, rest.problem).items():
            add(found, [(int(lengths[d]), k) for d, k in row], times)
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
    left, found = node.relaxation.problem.counts.copy(), dict(node.found)
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
            add(found, zip(node.lengths[d].tolist(), copies.tolist(), strict=True), times)
            n_up += rounds_up
    return left, found, n_up
