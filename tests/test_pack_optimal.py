"""Packing by column generation: against brute force, its own proven bound, and what a plan must be."""

from __future__ import annotations

import time
from itertools import pairwise, product

import numpy as np
import pytest

from fastnlp._dispatch import implementation
from fastnlp.kernels.reference import _knapsack
from fastnlp.ops._optimal_patterns import Problem, columns_of
from fastnlp.ops._optimal_plan import optimal_plan
from fastnlp.ops._optimal_pricing import Pricing
from fastnlp.ops._optimal_relaxation import Relaxation
from fastnlp.ops._pack_plan import decreasing

KERNELS = implementation("pack", "reference")
MINUTE = 60.0  # a limit that no test reaches


def histogram(lengths):
    return np.unique(np.asarray(lengths, np.int64), return_counts=True)


def packed(lengths, capacity, max_per_row=None, time_limit=MINUTE, kernels=KERNELS):
    """Plan, check that it is one, and return its rows, the bound and the plan."""
    sizes, counts = histogram(lengths)
    most = max_per_row or len(lengths)
    plan, bound = optimal_plan(kernels, sizes, counts, capacity, most, time_limit)
    rows = int(plan.repeats.sum())
    assert_sound(plan, sizes, counts, capacity, most)
    assert bound <= rows <= decreasing(KERNELS, "first_fit_decreasing", sizes, counts, capacity, most).repeats.sum()
    return rows, bound, plan


def assert_sound(plan, sizes, counts, capacity, max_per_row):
    """Every item in exactly one row, entries of one length each, no row above what it can hold, tokens right."""
    ends = np.cumsum(counts)
    dealt = np.zeros(ends[-1], np.int64)
    for p, (begin, end) in enumerate(pairwise(plan.entry_ptr.tolist())):
        tokens = items = 0
        for start, copies in zip(plan.start[begin:end].tolist(), plan.copies[begin:end].tolist(), strict=True):
            length = int(np.searchsorted(ends, start, "right"))
            stop = start + int(plan.repeats[p]) * copies
            assert copies > 0
            assert stop <= ends[length]
            dealt[start:stop] += 1
            tokens += copies * int(sizes[length])
            items += copies
        assert tokens == plan.tokens[p] <= capacity
        assert 0 < items <= max_per_row
    assert (dealt == 1).all()


def fewest_rows(lengths, capacity, max_per_row):
    """The optimum by trying every row for every item."""
    lengths = sorted(lengths, reverse=True)
    least, best = -(-sum(lengths) // capacity), len(lengths)

    def place(k, rows):
        nonlocal best
        if len(rows) >= best or best == least:
            return
        if k == len(lengths):
            best = len(rows)
            return
        for room, places in set(rows):
            if lengths[k] <= room and places:
                rest = list(rows)
                rest[rest.index((room, places))] = room - lengths[k], places - 1
                place(k + 1, rest)
        place(k + 1, [*rows, (capacity - lengths[k], max_per_row - 1)])

    place(0, [])
    return best


def small_problem(rng):
    """Few items about which first-fit-decreasing is often wrong: a third or a quarter of a row, and what fills it."""
    capacity = int(rng.integers(5, 60))
    low = max(1, int(capacity * rng.choice([0.02, 0.15, 0.25])))
    high = max(low, int(capacity * rng.choice([0.35, 0.4, 0.5, 1.0])))
    lengths = rng.integers(low, high + 1, rng.integers(1, 12)).tolist()
    return lengths, capacity, int(min(len(lengths), rng.choice([2, 3, 4, 99])))


def test_small_problems_against_brute_force(rng):
    solved = 0
    for _ in range(600):
        lengths, capacity, most = small_problem(rng)
        rows, bound, _ = packed(lengths, capacity, most)
        optimum = fewest_rows(lengths, capacity, most)
        assert bound <= optimum <= rows <= optimum + 1, (lengths, capacity, most)
        solved += rows == optimum
    assert solved >= 594


def test_the_optimum_where_first_fit_decreasing_misses_it():
    lengths = [44, 24, 24, 22, 21, 17, 8, 8, 6, 6]
    sizes, counts = histogram(lengths)
    assert decreasing(KERNELS, "first_fit_decreasing", sizes, counts, 61, 10).repeats.sum() == 4
    assert packed(lengths, 61)[:2] == (3, 3)


@pytest.mark.parametrize(
    ("lengths", "capacity", "max_per_row", "rows"),
    [
        ([8, 11, 5, 8, 5, 4, 10, 5], 32, 4, 2),
        ([12, 7, 12, 8, 9, 8, 7, 7, 8, 7], 30, 10, 3),
        ([7, 7, 8, 6, 11, 6, 10, 16], 41, 4, 2),
        ([1, 2, 3, 1, 3, 1, 4, 2], 9, 4, 2),
        ([23, 19, 17, 23, 16, 20, 17, 15, 17, 15, 15, 20], 58, 12, 4),
        ([22, 18, 7, 16, 4, 8, 6, 21, 1, 6, 17], 46, 4, 3),
        ([15, 12, 17, 18, 20, 20, 14, 14, 16], 51, 4, 3),
        ([7, 4, 13, 9, 13, 11, 10, 8, 5, 5, 13, 7], 28, 3, 4),
        ([20, 15, 14, 11, 12, 16, 15, 10], 59, 8, 2),
        ([16, 15, 19, 16, 14, 12, 14, 13, 13, 17, 19, 12], 48, 4, 4),
        ([6, 7, 4, 11, 7, 9, 14, 15, 3, 5, 3, 7], 39, 4, 3),
        ([5, 3, 1, 15, 19, 5, 17, 9], 51, 4, 2),
    ],
)
def test_problems_in_which_one_way_of_rounding_fails(lengths, capacity, max_per_row, rows):
    assert packed(lengths, capacity, max_per_row)[:2] == (rows, rows)


@pytest.mark.parametrize("seed", [0, 1])
def test_any_values_prove_a_bound(seed):
    rng = np.random.default_rng(seed)
    for _ in range(100):
        lengths, capacity, most = small_problem(rng)
        sizes, counts = histogram(lengths)
        optimum = fewest_rows(lengths, capacity, most)
        columns = columns_of({((d, 1),): 1 for d in range(sizes.size)}, sizes.size)
        for cells in (1 << 20, 200):  # the smaller table counts tokens in larger units
            relaxation = Relaxation(Problem(sizes, counts, capacity, most, cells), columns, rng.random(sizes.size))
            assert relaxation.bound <= optimum


LENGTHS = {
    "questions and their contexts": (lambda rng, n: np.clip(rng.lognormal(np.log(150), 0.4, n), 30, 384), 384),
    "gamma, clipped": (lambda rng, n: np.clip(rng.gamma(8, 20, n), 20, 384), 384),
    "a third of a row": (lambda rng, n: rng.normal(0.34 * 2048, 0.03 * 2048, n), 2048),
    "two kinds, 2**k + 1": (lambda rng, n: rng.normal(np.where(rng.random(n) < 0.6, 180, 330), 20, n), 513),
}


@pytest.mark.parametrize("kind", LENGTHS)
def test_no_more_rows_than_the_proven_bound_and_one(kind, rng):
    draw, capacity = LENGTHS[kind]
    lengths = np.rint(draw(rng, 20_000)).astype(np.int64)
    rows, bound, _ = packed(lengths, capacity)
    sizes, counts = histogram(lengths)
    first_fit = decreasing(KERNELS, "first_fit_decreasing", sizes, counts, capacity, lengths.size).repeats.sum()
    assert rows <= bound + 1
    assert rows < 0.997 * first_fit  # else the test says nothing


@pytest.mark.parametrize("max_per_row", [1, 2, 3, 4, 7])
def test_rows_have_no_more_items_than_they_may(max_per_row, rng):
    lengths = np.clip(rng.gamma(5, 12, 3000), 1, 256).astype(np.int64)
    rows, bound, _ = packed(lengths, 256, max_per_row)
    assert rows <= bound + 1


@pytest.mark.parametrize(
    ("lengths", "capacity", "rows"),
    [
        ([5], 5, 1),
        ([1], 1 << 30, 1),
        ([7] * 100, 50, 15),  # seven a row, and two
        ([7] * 100, 6 + 7 * 100, 1),
        ([1] * 1000, 1, 1000),
        ([334, 333, 333] * 50, 1000, 50),
        ([513, 512] * 9, 1025, 9),
    ],
)
def test_plain_cases(lengths, capacity, rows):
    assert packed(lengths, capacity)[:2] == (rows, rows)


def test_a_large_capacity_and_few_lengths(rng):
    sizes = np.array([10**9 // 3 + 1, 10**9 // 4, 10**9 // 5, 123_456_789])
    rows, bound, _ = packed(np.repeat(sizes, [10, 20, 30, 50]), 10**9, time_limit=2.0)
    assert rows <= 1.05 * bound


def test_many_lengths_are_packed_in_groups(rng):
    lengths = np.rint(rng.normal(0.34 * 16384, 0.03 * 16384, 20_000)).astype(np.int64)
    sizes, counts = histogram(lengths)
    assert sizes.size > 1024
    first_fit = int(decreasing(KERNELS, "first_fit_decreasing", sizes, counts, 16384, lengths.size).repeats.sum())
    rows, bound, _ = packed(lengths, 16384, time_limit=2.5)
    assert rows < 0.99 * first_fit
    assert bound > 1.005 * lengths.sum() / 16384  # more than the tokens prove


@pytest.mark.parametrize("time_limit", [1e-300, 1e-6, 0.3])
def test_the_time_limit_holds(time_limit, rng):
    lengths = rng.integers(1638, 4096, 30_000)
    packed(lengths[:100], 8192, time_limit=time_limit)  # imports
    begin = time.perf_counter()
    packed(lengths, 8192, time_limit=time_limit)
    assert time.perf_counter() - begin < time_limit + 2  # far less than the search takes; machines may be busy


def test_a_solver_that_fails_leaves_first_fit_decreasing(monkeypatch, rng):
    import scipy.optimize

    class Failed:
        status = 4

    monkeypatch.setattr(scipy.optimize, "linprog", lambda *_, **__: Failed)
    lengths = np.rint(rng.normal(340, 30, 2000)).astype(np.int64)
    sizes, counts = histogram(lengths)
    first_fit = decreasing(KERNELS, "first_fit_decreasing", sizes, counts, 1000, 2000)
    rows, bound, _ = packed(lengths, 1000)
    assert rows == first_fit.repeats.sum() > bound


@pytest.mark.parametrize("limit", [1, 3, 12])
def test_a_solver_that_stops_midway_leaves_a_packing(limit, monkeypatch, rng):
    import scipy.optimize

    solve, calls = scipy.optimize.linprog, []

    def stops(*args, **options):
        calls.append(args)
        result = solve(*args, **options)
        if len(calls) > limit:
            result.status = 1
        return result

    monkeypatch.setattr(scipy.optimize, "linprog", stops)
    lengths = np.rint(rng.normal(340, 30, 2000)).astype(np.int64)
    packed(lengths, 1000)
    assert len(calls) > limit


def test_the_same_plan_again_and_on_each_backend(backend, rng):
    lengths = np.rint(rng.normal(340, 30, 3000)).astype(np.int64)
    *expected, first = packed(lengths, 1000)
    *figures, again = packed(lengths, 1000, kernels=implementation("pack", backend))
    assert figures == expected
    for mine, other in zip(again, first, strict=True):
        np.testing.assert_array_equal(mine, other)


def best_of_all(weights, places, values, tokens, most):
    return max(
        sum(v for v, taken in zip(values, choice, strict=True) if taken)
        for choice in product([False, True], repeat=len(weights))
        if sum(w for w, taken in zip(weights, choice, strict=True) if taken) <= tokens
        and sum(p for p, taken in zip(places, choice, strict=True) if taken) <= most
    )


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_knapsacks_against_all_choices(rows, rng):
    for _ in range(20):
        n = int(rng.integers(1, 8))
        weights, values = rng.integers(0, 9, n), rng.integers(0, 20, n)
        places = rng.integers(1, 3, n) * (rows > 1)
        take = np.ones((n, rows, 13), np.bool_)
        best = np.full((rows, 13), -9)
        _knapsack.fill(weights, places, values, take, best)
        for k in range(rows):
            for c in range(13):
                assert best[k, c] == best_of_all(weights, places, values, c, k)

        room = np.array([-1, 3, 12, 12])
        patterns = np.zeros((4, n), np.int64)
        _knapsack.trace(weights, places, np.arange(n), np.ones(n, np.int64), take, room, patterns)
        assert not patterns[0].any()
        for j in (1, 2, 3):
            left = rows - 1 if j == 3 else max(0, rows - 2)
            assert patterns[j] @ values == best[left, room[j]]
            assert patterns[j] @ weights <= room[j]
            assert patterns[j] @ places <= left


def test_patterns_of_a_small_table_fit_and_its_limit_holds(rng):
    for _ in range(50):
        sizes, counts = histogram(rng.integers(1, 200, 15))
        values = rng.integers(0, 1000, sizes.size)
        most = int(rng.integers(1, 6))
        exact, _ = Pricing(sizes, counts, 400, most, 1 << 24).best_patterns(values)
        limit, patterns = Pricing(sizes, counts, 400, most, 300).best_patterns(values)
        assert limit >= exact >= (patterns @ values).max(initial=0)
        assert (patterns @ sizes <= 400).all()
        assert (patterns <= counts).all()
        assert (patterns.sum(axis=1) <= most).all()
