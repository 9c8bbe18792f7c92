"""The linear relaxation of packing by patterns, solved by column generation, with a bound that is proven in integers.

    minimise  sum_p x_p   such that  sum_p a_dp x_p >= counts_d,  x >= 0

over all patterns p, a_dp copies of length d. For values v_d of the lengths, such as its dual solution, no packing has
fewer than ``sum_d counts_d v_d / max_p sum_d a_dp v_d`` rows (Farley): integer values make this bound an exact one.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from fastnlp._arrays import Array
from fastnlp.ops._optimal_patterns import Problem
from fastnlp.ops._optimal_pricing import Pricing

_SCALE = 1 << 32  # values are multiples of its inverse
_TOLERANCE = 1e-7  # of dual values
_ROUNDS = 500
_PROGRESS = 0.01  # rows
# Pricing is done between the dual values and the best ones so far, which keeps it from swinging: nearer to them if
# that finds no pattern for the dual values themselves.
_SMOOTHING = (0.65, 0.3, 0.1, 0.0)


class Relaxation:
    """The relaxation of `problem` on the patterns that were found so far.

    Attributes
    ----------
    columns
        Patterns, ``(D, P)``, a sparse matrix by columns.
    x
        How often each is used, ``(P,)``; None before there is a solution.
    value
        ``x.sum()``, not below the relaxation's minimum.
    bound, values
        No packing has fewer rows: proven, by these values of the lengths.
    """

    def __init__(self, problem: Problem, columns: Any, values: Array) -> None:
        from scipy.sparse import csc_array, diags_array, hstack

        self.problem = problem
        self._pricing = Pricing(*problem)
        most = self._pricing.most
        columns = columns.copy()
        columns.data = np.minimum(columns.data, most[columns.indices])
        self.x: Array | None = None
        self.value = np.inf
        self.bound = 1
        self._ratio = 0.0
        self._forgotten_at = np.inf
        self._duals = self.values = values
        patterns = csc_array(self._price(values).T.astype(np.float64))
        self.columns = hstack([columns, diags_array(most.astype(np.float64)), patterns], format="csc")
        self.columns.eliminate_zeros()

    def restrict(self, left: Array) -> Relaxation:
        """Return the relaxation for the counts `left`, on the patterns that are worth most."""
        kept = np.flatnonzero(left)
        best = np.argsort(-(self.columns.T @ self._duals), kind="stable")[: 3 * kept.size + 50]
        columns = self.columns[:, np.sort(best)].tocsr()[kept].tocsc()
        problem = self.problem._replace(sizes=self.problem.sizes[kept], counts=left[kept])
        return Relaxation(problem, columns, self._duals[kept])

    def solve(self, goal: int, deadline: float) -> None:
        """Add patterns until the minimum is found, or rounds up to `bound`, or `goal` or the deadline is reached."""
        from scipy.sparse import csc_array, hstack

        for _ in range(_ROUNDS):
            if not self._solve_master(deadline) or self.value <= goal + _TOLERANCE or self._closed():
                return
            patterns = self._improving(deadline)
            if not patterns:
                return
            self.columns = hstack([self.columns, csc_array(np.array(patterns, np.float64).T)], format="csc")

    def _solve_master(self, deadline: float) -> bool:
        """Solve for the patterns found so far. Forget those that are worth least, but not twice without progress."""
        from scipy.optimize import linprog

        left = deadline - time.monotonic()
        if left <= 0:
            return False
        n_lengths, n_columns = self.columns.shape
        cost = np.ones(n_columns)
        result = linprog(cost, -self.columns, -self.problem.counts, method="highs-ds", options={"time_limit": left})
        if result.status != 0:
            return False
        self.x, self.value = result.x, float(result.fun)
        self._duals = np.maximum(-result.ineqlin.marginals, 0.0)
        if n_columns > 5 * n_lengths and self.value < self._forgotten_at - _PROGRESS:
            self._forgotten_at = self.value
            worth = self.columns.T @ self._duals
            kept = np.sort(np.lexsort((-worth, self.x <= 0))[: 4 * n_lengths])
            self.columns, self.x = self.columns[:, kept], self.x[kept]
        return True

    def _improving(self, deadline: float) -> list[Array]:
        """Return patterns that are worth more than a row at the dual values; none: the minimum is found."""
        for smoothing in _SMOOTHING:
            patterns = self._price(smoothing * self.values + (1 - smoothing) * self._duals)
            if self._closed() or time.monotonic() > deadline:
                break
            better = patterns[patterns @ self._duals > 1 + _TOLERANCE]
            if better.size:
                return list({pattern.tobytes(): pattern for pattern in better}.values())
        return []

    def _price(self, values: Array) -> Array:
        """Return the best patterns at `values`, and raise the bound by what they prove."""
        exact = np.floor(values * _SCALE).astype(np.int64)
        most, patterns = self._pricing.best_patterns(exact)
        total = sum(n * v for n, v in zip(self.problem.counts.tolist(), exact.tolist(), strict=True))
        if most and total / most > self._ratio:
            self._ratio = total / most
            self.values = exact / most
            self.bound = max(self.bound, -(-total // most))
        return patterns

    def _closed(self) -> bool:
        return bool(np.ceil(self.value - 10 * _TOLERANCE) <= self.bound)
