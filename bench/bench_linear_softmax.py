"""Linear map and softmax into a given output. Flops: 2 N V D (the exponentials beside it are not counted)."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import fastnlp
from bench.harness import Contestant, prepared


@pytest.mark.parametrize(("n", "d", "v"), [(16, 64, 64), (512, 64, 32_000), (512, 256, 32_000)])
def bench_linear_softmax(contest, n, d, v):
    rng = np.random.default_rng(0)
    x, w, b = (rng.normal(0, 0.5, shape).astype(np.float32) for shape in ((n, d), (v, d), (v,)))
    out = np.full((n, v), np.nan, np.float32)
    contest(
        "linear_softmax",
        f"{n:,} x {d} to {v:,} float32",
        ours=Contestant("fastnlp", partial(fastnlp.linear_softmax, x, w, b, out=out)),
        peers=[
            prepared("NumPy + SciPy", _scipy, x, w, b),
            prepared("torch", _torch, x, w, b),
            Contestant("one bare GEMM", _gemm(x, w), result=lambda _: _truth(x, w, b)),
        ],
        expect=_truth(x, w, b),
        rtol=1e-4,
        atol=1e-9,
        flops=2 * n * d * v,
        note="The bare GEMM is the floor: it computes no softmax, and its result is not checked.",
    )


def _truth(x, w, b):
    z = x.astype(np.float64) @ w.T.astype(np.float64) + b
    z = np.exp(z - z.max(axis=1, keepdims=True))
    return z / z.sum(axis=1, keepdims=True)


def _scipy(x, w, b):
    from scipy import special

    return lambda: special.softmax(x @ w.T + b, axis=1)


def _torch(x, w, b):
    import torch

    xx, ww, bb = (torch.from_numpy(a) for a in (x, w, b))
    out = torch.full((len(x), len(w)), torch.nan)
    return lambda: torch.softmax(torch.addmm(bb, xx, ww.T), 1, out=out)


def _gemm(x, w):
    out = np.full((len(x), len(w)), np.nan, np.float32)
    return lambda: np.matmul(x, w.T, out=out)
