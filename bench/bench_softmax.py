"""Softmax, log-softmax and log-sum-exp of rows.

Bytes: each element is read once and, but for logsumexp, written once (one value a row is neglected). A row of 32,768
float32 is 128 KiB: one row and eight stay in cache, 1,024 rows (128 MiB) come from memory. Shares of the copy rate are
of copies that move as many bytes on as many threads; ``--threads 1`` gives everybody one.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import fastnlp
from bench.harness import Contestant, prepared

SHAPES = [(8, 10), (1, 32_768), (8, 32_768), (1_024, 32_768)]


@pytest.fixture(params=SHAPES, ids="{0[0]}x{0[1]}".format)
def x(request):
    return np.random.default_rng(0).normal(0, 4, request.param).astype(np.float32)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def bench_softmax(contest, x, name):
    shape = x.shape[:1] if name == "logsumexp" else x.shape
    y = np.full(shape, np.nan, np.float32)
    contest(
        name,
        f"{x.shape[0]:,} x {x.shape[1]:,} float32",
        ours=Contestant("fastnlp", partial(getattr(fastnlp, name), x, out=y)),
        peers=[prepared("torch", _torch, name, x), prepared("SciPy", _scipy, name, x)],
        expect=partial(_right, name, x),
        bytes=(1 if name == "logsumexp" else 2) * x.nbytes,
    )


def _torch(name, x):
    import torch

    t = torch.from_numpy(x)
    out = torch.full(x.shape[:1] if name == "logsumexp" else x.shape, torch.nan)
    return partial(getattr(torch, name), t, -1, out=out)


def _scipy(name, x):
    from scipy import special

    return partial(getattr(special, name), x, axis=-1)


def _right(name, x, got):
    """Hold up to 32 of the rows, evenly spread, against float64; the tolerance is a few float32 ulp of the logit."""
    rows = np.linspace(0, len(x) - 1, min(len(x), 32)).astype(int)
    z = x[rows].astype(np.float64)
    top = z.max(axis=1, keepdims=True)
    lse = top + np.log(np.exp(z - top).sum(axis=1, keepdims=True))
    want = {"softmax": np.exp(z - lse), "log_softmax": z - lse, "logsumexp": lse[:, 0]}[name]
    np.testing.assert_allclose(np.asarray(got)[rows], want, rtol=2e-5, atol=0 if name == "softmax" else 2e-5)
