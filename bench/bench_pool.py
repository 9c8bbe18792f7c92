"""Pooling of hidden states to a vector for each sequence, of 64 sequences of log-normal lengths (median 150 tokens).

Bytes: the vectors that count are read once ("cls": one a sequence); for the gradient, one write of all of them. For
"cls" that is one a sequence too: the rest are pages of zeros that nobody writes. Gradients are allocated inside the
timed call, by everybody.

The peers: torch's `segment_reduce` on the packed vectors, and on padded ones the masked mean and maximum as models
write them. Its "cls" of padded vectors is a view, which costs nothing; ours are contiguous.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import fastnlp
from bench.harness import Contestant, prepared

N, STEPS, D = 64, 512, 768


@pytest.mark.parametrize("gradient", [False, True], ids=["value", "gradient"])
@pytest.mark.parametrize("mode", ["cls", "mean", "max"])
@pytest.mark.parametrize("layout", ["packed", "padded"])
def bench_pool(contest, layout, mode, gradient):
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(np.log(150), 0.6, N).clip(2, STEPS).astype(np.int64)
    cu_seqlens = np.append(0, np.cumsum(lengths))
    if layout == "packed":
        hidden, given = rng.standard_normal((cu_seqlens[-1], D), np.float32), {"cu_seqlens": cu_seqlens}
    else:
        hidden, given = rng.standard_normal((N, STEPS, D), np.float32), {"lengths": lengths}
    read = 4 * D * (N if mode == "cls" else int(cu_seqlens[-1]))
    written = 4 * D * N if mode == "cls" else hidden.nbytes
    contest(
        f"pool with gradient, {mode}" if gradient else f"pool, {mode}",
        f"{layout}, {N} sequences, {cu_seqlens[-1]:,} vectors of {D}",
        ours=Contestant("fastnlp", partial(_ours, hidden, mode, given, gradient)),
        peers=[prepared("torch", _torch, hidden, mode, layout, lengths, gradient)],
        expect=_truth(hidden, mode, given, gradient),
        rtol=1e-4,
        atol=1e-6,
        bytes=read + written if gradient else read,
    )


def _ours(hidden, mode, given, gradient):
    if not gradient:
        return [fastnlp.pool(hidden, mode=mode, **given)]
    y, pullback = fastnlp.vjp(fastnlp.pool)(hidden, mode=mode, **given)
    return [y, pullback(np.ones_like(y)).hidden]


def _truth(hidden, mode, given, gradient):
    if "cu_seqlens" in given:
        begin, lengths = given["cu_seqlens"][:-1], np.diff(given["cu_seqlens"])
    else:
        begin, lengths = np.arange(N) * STEPS, given["lengths"]
    rows = hidden.reshape(-1, D)
    y, dx = np.empty((N, D)), np.zeros_like(rows)
    for n in range(N):
        x, written = rows[begin[n] : begin[n] + lengths[n]], dx[begin[n] : begin[n] + lengths[n]]
        if mode == "cls":
            y[n], written[0] = x[0], 1
        elif mode == "mean":
            y[n], written[...] = x.mean(axis=0, dtype=np.float64), 1 / lengths[n]
        else:
            y[n] = x.max(axis=0)
            written[x.argmax(axis=0), np.arange(D)] = 1
    return [y, dx.reshape(hidden.shape)] if gradient else [y]


def _torch(hidden, mode, layout, lengths, gradient):
    import torch

    x, counts = torch.from_numpy(hidden), torch.from_numpy(lengths)
    begin = counts.cumsum(0) - counts

    def packed(x):
        return x[begin] if mode == "cls" else torch.segment_reduce(x, mode, lengths=counts)

    def padded(x):
        if mode == "cls":
            return x[:, 0]
        mask = (torch.arange(STEPS) < counts[:, None])[..., None]
        if mode == "mean":
            return (x * mask).sum(1) / counts[:, None]
        return x.masked_fill(~mask, -torch.inf).amax(1)

    pool = packed if layout == "packed" else padded

    def with_gradient():
        leaf = x.detach().requires_grad_()
        y = pool(leaf)
        return [y.detach(), torch.autograd.grad(y.sum(), leaf)[0]]

    return with_gradient if gradient else lambda: [pool(x)]
