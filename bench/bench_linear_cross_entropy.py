"""Loss of a linear classifier: forward alone, and with the gradients of input and weight.

Flops: 2 N V D forward, 6 N V D with both gradients, N the rows that count. The contestants are in `bench.heads`. The
bare matrix products of all rows, into arrays allocated beforehand, are the floor: they compute no loss.

Without options a few shapes run. ``--grid`` runs all; choose among them by ``-k``, as in ``-k "N1024 and D768"``.
"""

from __future__ import annotations

import itertools
import os

import numpy as np
import pytest

from bench.heads import contestants

SHORT = [  # N, V, D, rows ignored, gradients
    (1_024, 32_000, 64, 0.0, True),
    (1_024, 32_000, 256, 0.0, False),
    (1_024, 32_000, 256, 0.0, True),
    (1_024, 32_000, 256, 0.8, True),
]
GRID = [
    *itertools.product([1_024], [32_000], [64, 256, 768], [0.0, 0.5, 0.8], [False, True]),
    *itertools.product(
        [256, 2_048, 8_192], [1_000, 32_000, 128_256], [64, 256, 768, 2_048], [0.0, 0.5, 0.8], [False, True]
    ),
]
COPIES = 6
"""Arrays of all logits at once, at most: torch eager holds four, and each of the two floors one."""


def _case(n, v, d, ignored, gradient):
    marks = () if (n, v, d, ignored, gradient) in SHORT else pytest.mark.grid
    name = f"N{n}-V{v}-D{d}-ignored{100 * ignored:.0f}-{'gradients' if gradient else 'forward'}"
    return pytest.param(n, v, d, ignored, gradient, marks=marks, id=name)


@pytest.mark.parametrize(("n", "v", "d", "ignored", "gradient"), [_case(*case) for case in GRID])
def bench_linear_cross_entropy(contest, n, v, d, ignored, gradient):
    needed, there = 4 * n * v * COPIES, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > 0.8 * there:
        pytest.skip(f"torch eager and the bare products take {needed / 2**30:.0f} of {there / 2**30:.0f} GiB of memory")
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape, np.float32) * np.float32(0.3) for shape in ((n, d), (v, d)))
    target = rng.integers(0, v, n)
    target[rng.random(n) < ignored] = -100
    counted = np.count_nonzero(target >= 0)
    truth = _truth(x, w, target, gradient)
    ours, *peers = contestants(x, w, target, gradient, truth)
    contest(
        "linear_cross_entropy with gradients" if gradient else "linear_cross_entropy",
        f"N={n:,} V={v:,} D={d}, {ignored:.0%} ignored",
        ours=ours,
        peers=peers,
        expect=truth,
        rtol=1e-4,
        atol=1e-6 / counted,
        flops=(6 if gradient else 2) * counted * v * d,
        note="The bare products are of all rows, those ignored included; their result is not checked.",
    )


def _truth(x, w, target, gradient):
    """Return the loss and the gradients from float64, some rows at a time."""
    kept, ww = np.flatnonzero(target >= 0), w.astype(np.float64)
    loss, dx, dw = 0.0, np.zeros(x.shape), np.zeros(w.shape if gradient else 0)
    for rows in np.array_split(kept, -(-len(kept) // 128)):
        xx, own = x[rows].astype(np.float64), (np.arange(len(rows)), target[rows])
        z = xx @ ww.T
        z -= z.max(axis=1, keepdims=True)
        logit = z[own]
        np.exp(z, out=z)
        total = z.sum(axis=1, keepdims=True)
        loss += (np.log(total[:, 0]) - logit).sum() / len(kept)
        if gradient:
            z /= total
            z[own] -= 1
            z /= len(kept)
            dx[rows] = z @ ww
            dw += z.T @ xx
    return [loss, dx, dw] if gradient else [loss]
