"""Linear map with bias and activation into a given output. Flops: 2 N V D; bytes: the operands and the output."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import fastnlp
from bench.harness import Contestant, prepared


@pytest.mark.parametrize(("n", "d", "v"), [(16, 64, 64), (2_048, 256, 4_096)])
def bench_linear(contest, n, d, v):
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((n, d), (v, d), (v,)))
    out = np.full((n, v), np.nan, np.float32)
    contest(
        "linear with relu",
        f"{n:,} x {d} to {v:,} float32",
        ours=Contestant("fastnlp", partial(fastnlp.linear, x, w, b, activation="relu", out=out)),
        peers=[Contestant("NumPy", _numpy(x, w, b)), prepared("torch", _torch, x, w, b)],
        expect=np.maximum(x.astype(np.float64) @ w.T.astype(np.float64) + b, 0),
        rtol=1e-4,
        atol=1e-4,
        flops=2 * n * d * v,
        bytes=x.nbytes + w.nbytes + out.nbytes,
    )


def _numpy(x, w, b):
    out = np.full((len(x), len(w)), np.nan, np.float32)

    def call():
        np.matmul(x, w.T, out=out)
        np.add(out, b, out=out)
        return np.maximum(out, 0, out=out)

    return call


def _torch(x, w, b):
    import torch

    xx, ww, bb = (torch.from_numpy(a) for a in (x, w, b))
    out = torch.full((len(x), len(w)), torch.nan)
    return lambda: torch.addmm(bb, xx, ww.T, out=out).relu_()
