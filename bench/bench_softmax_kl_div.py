"""Divergence of two softmaxes from their logits, the loss alone and with the gradient of the input's logits.

Bytes: both logits are read once, and the gradient is written once. The gradient is allocated inside the timed call, by
everybody.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import fastnlp
from bench.harness import Contestant, prepared

SHAPES = [(8, 10), (8, 32_768), (1_024, 32_768)]


@pytest.mark.parametrize("gradient", [False, True], ids=["loss", "gradient"])
@pytest.mark.parametrize("beta", [0.0, 0.5], ids=["KL", "JSD"])
@pytest.mark.parametrize("shape", SHAPES, ids="{0[0]}x{0[1]}".format)
def bench_softmax_kl_div(contest, shape, beta, gradient):
    rng = np.random.default_rng(0)
    y = rng.normal(0, 3, shape).astype(np.float32)
    x = y + rng.normal(0, 1, shape).astype(np.float32)
    ours = fastnlp.value_and_grad(fastnlp.softmax_kl_div, wrt="input") if gradient else fastnlp.softmax_kl_div
    contest(
        "softmax_kl_div with gradient" if gradient else "softmax_kl_div",
        f"{shape[0]:,} x {shape[1]:,} float32, beta={beta}",
        ours=Contestant("fastnlp", partial(ours, x, y, beta=beta), result=_flat),
        peers=[prepared("torch", _torch, x, y, beta, gradient), prepared("SciPy", _scipy, x, y, beta, gradient)],
        expect=partial(_right, x, y, beta, gradient),
        bytes=(3 if gradient else 2) * x.nbytes,
    )


def _flat(value):
    loss, grads = value if isinstance(value, tuple) else (value, None)
    return [float(loss)] if grads is None else [float(loss), np.asarray(grads[0])]


def _torch(x, y, beta, gradient):
    import torch
    from torch.nn import functional as F  # noqa: N812

    teacher = torch.from_numpy(y)

    def kl(p, m):
        return F.kl_div(m, p, reduction="batchmean", log_target=True)

    def loss(student):
        log_q, log_p = F.log_softmax(student, dim=-1), F.log_softmax(teacher, dim=-1)
        if beta == 0:
            return kl(log_p, log_q)
        m = torch.logaddexp(log_p + np.log(beta), log_q + np.log1p(-beta))
        return beta * kl(log_p, m) + (1 - beta) * kl(log_q, m)

    def call():
        leaf = torch.from_numpy(x).requires_grad_(gradient)
        value = loss(leaf)
        return (value.detach(), torch.autograd.grad(value, leaf)) if gradient else value

    return Contestant("torch", call, result=_flat)


def _scipy(x, y, beta, gradient):
    from scipy import special

    def call():
        log_p, log_q = special.log_softmax(y, axis=1), special.log_softmax(x, axis=1)
        p, q = np.exp(log_p), np.exp(log_q)
        if beta == 0:
            loss, dx = (p * (log_p - log_q)).sum(dtype=np.float64), q - p
        else:
            log_m = np.log(beta * p + (1 - beta) * q)
            of_q = q * (log_q - log_m)
            loss = beta * (p * (log_p - log_m)).sum(dtype=np.float64) + (1 - beta) * of_q.sum(dtype=np.float64)
            dx = (1 - beta) * (of_q - q * of_q.sum(axis=1, keepdims=True))
        return (loss / len(x), (dx / len(x),)) if gradient else loss / len(x)

    return Contestant("SciPy", call, result=_flat)


def _right(x, y, beta, gradient, got):
    """Hold the loss, and up to 32 rows of the gradient, against float64."""
    total, rows = 0.0, set(np.linspace(0, len(x) - 1, min(len(x), 32)).astype(int))
    for n in range(len(x)):
        log_p, log_q = (a[n].astype(np.float64) - a[n].max() for a in (y, x))
        log_p, log_q = (a - np.log(np.exp(a).sum()) for a in (log_p, log_q))
        p, q = np.exp(log_p), np.exp(log_q)
        log_m = np.log(beta * p + (1 - beta) * q)
        of_p, of_q = p * (log_p - log_m), q * (log_q - log_m)
        total += of_p.sum() if beta == 0 else beta * of_p.sum() + (1 - beta) * of_q.sum()
        if gradient and n in rows:
            dx = q - p if beta == 0 else (1 - beta) * (of_q - q * of_q.sum())
            np.testing.assert_allclose(got[1][n], dx / len(x), rtol=1e-3, atol=1e-6 / len(x))
    np.testing.assert_allclose(got[0], total / len(x), rtol=1e-4)
