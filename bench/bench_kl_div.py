"""Kullback-Leibler divergence of given distributions, the loss alone and with the gradient of the log-probabilities.

Bytes: both arrays are read for the loss; for the gradient the target is read again and the gradient written. The
gradient is allocated inside the timed call, by everybody.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import fastnlp
from bench.harness import Contestant, prepared

SHAPES = [(8, 10), (8, 32_768), (1_024, 32_768)]


@pytest.mark.parametrize("gradient", [False, True], ids=["loss", "gradient"])
@pytest.mark.parametrize("shape", SHAPES, ids="{0[0]}x{0[1]}".format)
def bench_kl_div(contest, shape, gradient):
    rng = np.random.default_rng(0)
    x, t = (_log_softmax(rng.normal(0, 3, shape).astype(np.float32)) for _ in range(2))
    t = np.exp(t)
    ours = fastnlp.value_and_grad(fastnlp.kl_div, wrt="input") if gradient else fastnlp.kl_div
    contest(
        "kl_div with gradient" if gradient else "kl_div",
        f"{shape[0]:,} x {shape[1]:,} float32",
        ours=Contestant("fastnlp", partial(ours, x, t, reduction="batchmean"), result=_flat),
        peers=[prepared("torch", _torch, x, t, gradient), prepared("SciPy", _scipy, x, t, gradient)],
        expect=_truth(x, t, gradient),
        rtol=2e-5,
        bytes=(4 if gradient else 2) * x.nbytes,
    )


def _log_softmax(x):
    x = x - x.max(axis=1, keepdims=True)
    x -= np.log(np.exp(x).sum(axis=1, dtype=np.float64, keepdims=True)).astype(x.dtype)
    return x


def _truth(x, t, gradient):
    loss = sum((b * (np.log(b) - a)).sum() for a, b in zip(x.astype(np.float64), t.astype(np.float64), strict=True))
    return [loss / len(x), -t / np.float32(len(x))] if gradient else [loss / len(x)]


def _flat(value):
    loss, grads = value if isinstance(value, tuple) else (value, None)
    return [float(loss)] if grads is None else [float(loss), np.asarray(grads[0])]


def _torch(x, t, gradient):
    import torch

    log_q, p = torch.from_numpy(x), torch.from_numpy(t)

    def loss():
        return torch.nn.functional.kl_div(log_q, p, reduction="batchmean")

    def with_gradient():
        leaf = log_q.detach().requires_grad_()
        value = torch.nn.functional.kl_div(leaf, p, reduction="batchmean")
        return value.detach(), torch.autograd.grad(value, leaf)

    return Contestant("torch", with_gradient if gradient else loss, result=_flat)


def _scipy(x, t, gradient):
    from scipy import special

    def loss():
        return (special.xlogy(t, t) - t * x).sum(dtype=np.float64) / len(x)

    def with_gradient():
        return loss(), (t / np.float32(-len(x)),)

    return Contestant("SciPy", with_gradient if gradient else loss, result=_flat)
