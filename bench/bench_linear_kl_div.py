"""Distillation loss of a linear classifier from a teacher's hidden states: forward alone, and with the gradients.

Flops: 2 N V (D + E) forward, 2 N V (3 D + E) with the gradients of input and weight. Gradients are allocated inside the
timed call, by everybody. The bare GEMMs, into arrays allocated beforehand, are the floor: they compute no loss.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import fastnlp
from bench.harness import Contestant, prepared

N, V = 512, 32_000


@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "gradients"])
@pytest.mark.parametrize("beta", [0.0, 0.5], ids=["KL", "JSD"])
@pytest.mark.parametrize(("d", "e"), [(64, 128), (256, 512)])
def bench_linear_kl_div(contest, d, e, beta, gradient):
    rng = np.random.default_rng(0)
    x, w, tx, tw = (rng.normal(0, 0.3, shape).astype(np.float32) for shape in ((N, d), (V, d), (N, e), (V, e)))
    ours = fastnlp.value_and_grad(fastnlp.linear_kl_div) if gradient else fastnlp.linear_kl_div
    truth = _truth(x, w, tx, tw, beta, gradient)
    contest(
        "linear_kl_div with gradients" if gradient else "linear_kl_div",
        f"N={N:,} V={V:,} D={d} E={e}, beta={beta}",
        ours=Contestant("fastnlp, NumPy arrays", partial(ours, x, w, tx, tw, beta=beta), result=_flat),
        peers=[
            Contestant("bare GEMMs, NumPy", _gemms(x, w, tx, tw, gradient), result=lambda _: truth),
            prepared("torch eager", _torch, x, w, tx, tw, beta, gradient),
        ],
        expect=truth,
        rtol=1e-3,
        atol=1e-6,
        flops=2 * N * V * (e + d * (3 if gradient else 1)),
        note="The bare GEMMs are the floor; their result is not checked.",
    )


def _truth(x, w, tx, tw, beta, gradient):
    loss, dx, dw = 0.0, np.empty(x.shape), np.zeros(w.shape)
    for begin in range(0, N, 64):
        part = slice(begin, begin + 64)
        log_q, log_p = (a[part].astype(np.float64) @ b.T.astype(np.float64) for a, b in ((x, w), (tx, tw)))
        for z in (log_q, log_p):
            z -= z.max(axis=1, keepdims=True)
            z -= np.log(np.exp(z).sum(axis=1, keepdims=True))
        p, q = np.exp(log_p), np.exp(log_q)
        log_m = np.log(beta * p + (1 - beta) * q)
        of_p, of_q = (p * (log_p - log_m)).sum(axis=1), (q * (log_q - log_m)).sum(axis=1)
        loss += (of_p if beta == 0 else beta * of_p + (1 - beta) * of_q).sum() / N
        dz = (q - p if beta == 0 else (1 - beta) * q * (log_q - log_m - of_q[:, None])) / N
        dx[part] = dz @ w
        dw += dz.T @ x[part]
    return [loss, dx, dw] if gradient else [loss]


def _flat(value):
    if not isinstance(value, tuple):
        return [float(value)]
    loss, grads = value
    return [float(loss), *(np.asarray(g) for g in grads if g is not None)]


def _gemms(x, w, tx, tw, gradient):
    z, y, dx, dw = np.zeros((N, V), x.dtype), np.zeros((N, V), x.dtype), np.empty_like(x), np.empty_like(w)

    def call():
        np.matmul(tx, tw.T, out=y)
        np.matmul(x, w.T, out=z)
        if gradient:
            np.matmul(z, w, out=dx)
            np.matmul(z.T, x, out=dw)

    return call


def _torch(x, w, tx, tw, beta, gradient):
    import torch
    from torch.nn import functional as F  # noqa: N812

    teacher = [torch.from_numpy(a) for a in (tx, tw)]

    def kl(p, m):
        return F.kl_div(m, p, reduction="batchmean", log_target=True)

    def call():
        student = [torch.from_numpy(a).requires_grad_(gradient) for a in (x, w)]
        log_q, log_p = F.log_softmax(F.linear(*student), dim=-1), F.log_softmax(F.linear(*teacher), dim=-1)
        if beta == 0:
            loss = kl(log_p, log_q)
        else:
            m = torch.logaddexp(log_p + np.log(beta), log_q + np.log1p(-beta))
            loss = beta * kl(log_p, m) + (1 - beta) * kl(log_q, m)
        return (loss.detach(), torch.autograd.grad(loss, student)) if gradient else loss

    return Contestant("torch eager", call, result=_flat)
