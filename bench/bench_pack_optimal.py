"""Packing into the fewest rows, on lengths around a third of a row, where first-fit-decreasing wastes a twentieth.

Bytes are not what it waits for: they are those of the items and rows, as for any packing.

The peer is column generation as textbooks have it, on SciPy's `linprog`: one pattern a round, the whole parts of the
solution as rows, and first-fit-decreasing for what is left.
"""

from __future__ import annotations

from functools import partial

import numpy as np

import fastnlp
from bench.harness import Contestant

CAPACITY = 256


def bench_pack_optimal(contest, n=20_000):
    lengths = np.random.default_rng(0).normal(0.34 * CAPACITY, 0.02 * CAPACITY, n).round().astype(np.int64)
    pack = partial(fastnlp.pack, lengths, CAPACITY, algorithm="optimal", time_limit=30.0, backend="cpu")
    packing = pack()
    assert len(packing) <= packing.lower_bound + 1, f"{len(packing)} rows, {packing.lower_bound} might do"
    contest(
        "pack, optimal",
        f"{n:,} lengths around {int(0.34 * CAPACITY)}, capacity {CAPACITY}",
        ours=Contestant("fastnlp", pack, result=list),
        peers=[Contestant("SciPy", partial(_textbook, lengths))],
        expect=partial(_sound, lengths, packing.lower_bound),
        bytes=16 * n + 24 * len(packing),
    )


def _textbook(lengths):
    from scipy.optimize import linprog

    sizes, counts = np.unique(lengths, return_counts=True)
    patterns = np.diag(CAPACITY // sizes)
    while True:
        solution = linprog(np.ones(len(patterns)), -patterns.T, -counts, method="highs")
        values = -solution.ineqlin.marginals
        pattern = _best_pattern(sizes, values)
        if pattern @ values <= 1 + 1e-6:
            break
        patterns = np.vstack([patterns, pattern])
    left = [np.flatnonzero(lengths == size).tolist() for size in sizes]
    rows = []
    for pattern, times in zip(patterns, solution.x.astype(int), strict=True):
        for _ in range(times):
            taken = [[left[d].pop() for _ in range(min(pattern[d], len(left[d])))] for d in np.flatnonzero(pattern)]
            rows.append([item for items in taken for item in items])
    rest = np.array(sorted(item for items in left for item in items))
    return [*rows, *([rest[row].tolist() for row in fastnlp.pack(lengths[rest], CAPACITY)])]


def _best_pattern(sizes, values):
    best, choice = np.zeros(CAPACITY + 1), np.full(CAPACITY + 1, -1)
    for room in range(int(sizes[0]), CAPACITY + 1):
        worth = best[room - sizes[sizes <= room]] + values[sizes <= room]
        choice[room] = int(np.argmax(worth))
        best[room] = worth[choice[room]]
    pattern, room = np.zeros(sizes.size, np.int64), CAPACITY
    while choice[room] >= 0:
        pattern[choice[room]] += 1
        room -= sizes[choice[room]]
    return pattern


def _sound(lengths, fewest, rows):
    """Every item is in one row, no row is too long, and there are at most 1 % more rows than any packing needs."""
    assert sorted(item for row in rows for item in row) == list(range(lengths.size)), "not every item is in one row"
    longest = max(int(lengths[np.asarray(row)].sum()) for row in rows)
    assert longest <= CAPACITY, f"a row has {longest} tokens"
    assert len(rows) <= 1.01 * fewest, f"{len(rows)} rows, {fewest} might do"
