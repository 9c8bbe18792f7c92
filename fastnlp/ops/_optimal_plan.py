"""Packing into nearly as few rows as possible: column generation on the histogram of lengths, then diving.

Where there are many lengths, groups of neighbouring ones are packed first, each as long as its longest.
"""

from __future__ import annotations

import time
from types import ModuleType

import numpy as np

from fastnlp._arrays import Array
from fastnlp.ops._optimal_diving import Search
from fastnlp.ops._optimal_patterns import Problem, Rows, add, first_fit_decreasing, plan_of
from fastnlp.ops._pack_plan import Plan, lower_bound

_MOST_LENGTHS = 512  # that are packed without groups
_GROUPS = 256
_TIME_OF_GROUPS = 0.5
_CELLS_A_SECOND = 1 << 23  # of the time limit: a table is filled in some 3 % of it
_FEWEST_CELLS, _MOST_CELLS = 1 << 16, 1 << 27


def optimal_plan(
    kernels: ModuleType, sizes: Array, counts: Array, capacity: int, max_per_row: int, time_limit: float
) -> tuple[Plan, int]:
    """Return a plan and a proven lower bound on the rows of any plan; never more rows than first-fit-decreasing.

    The same result again, unless the time limit is reached.

    Parameters
    ----------
    kernels
        Of `pack`.
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
    end = time.monotonic() + time_limit
    cells = int(min(max(_CELLS_A_SECOND * time_limit, _FEWEST_CELLS), _MOST_CELLS))
    problem = Problem(sizes, counts, capacity, max_per_row, cells)
    best = first_fit_decreasing(kernels, problem)
    bound = lower_bound(sizes, counts, capacity, max_per_row)
    values = sizes / capacity
    if sizes.size > _MOST_LENGTHS and bound < sum(best.values()):
        group, grouped = _grouped(problem)
        search = Search(kernels, grouped, first_fit_decreasing(kernels, grouped), bound, grouped.sizes / capacity)
        search.run(_TIME_OF_GROUPS * (end - time.monotonic()))
        values = np.interp(sizes, np.append(0, grouped.sizes), np.append(0, search.values))
        best = min(best, _dealt(search.best, group, counts), key=lambda rows: sum(rows.values()))
    search = Search(kernels, problem, best, bound, values)
    if bound < search.rows:
        search.run(end - time.monotonic())
    return plan_of(search.best, sizes, counts), search.bound


def _grouped(problem: Problem) -> tuple[Array, Problem]:
    """Return the group of each length, ``(D,)``, and the problem of the groups' longest lengths.

    Groups of f items a token are as wide as 1 / sqrt(f): so are those with the least tokens that are added, where there
    are many groups.
    """
    width = np.sqrt(problem.counts * np.diff(problem.sizes, prepend=problem.sizes[0] - 1))
    place = np.cumsum(width) - width / 2
    group = np.unique((place * (_GROUPS / width.sum())).astype(np.int64), return_inverse=True)[1]
    last = np.flatnonzero(np.diff(group, append=-1))
    counts = np.add.reduceat(problem.counts, np.append(0, last[:-1] + 1))
    return group, problem._replace(sizes=problem.sizes[last], counts=counts)


def _dealt(rows: Rows, group: Array, counts: Array) -> Rows:
    """Return rows of lengths from rows of groups: the shortest length of each group is dealt first."""
    left = counts.tolist()
    head = np.searchsorted(group, np.arange(group[-1] + 1)).tolist()  # of each group, the first length with items left
    dealt: Rows = {}
    for row, repeats in rows.items():
        while repeats:
            times = max(1, min(repeats, *(left[head[g]] // copies for g, copies in row)))
            lengths = []
            for g, copies in row:
                short = times * copies
                while short:  # more than once where lengths of a group meet in this row: then times is 1
                    d = head[g]
                    taken = min(short, left[d])
                    lengths.append((d, taken // times))
                    left[d] -= taken
                    short -= taken
                    head[g] += not left[d]
            add(dealt, lengths, times)
            repeats -= times
    return dealt
