"""Entropy of softmax from logits, alone and with its gradient.

Bytes: the logits are read once, and their gradient is written once. The gradient is allocated inside the timed call, by
everybody.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import fastnlp
from bench.harness import Contestant, prepared

SHAPES = [(8, 10), (8, 32_768), (1_024, 32_768)]


@pytest.mark.parametrize("gradient", [False, True], ids=["value", "gradient"])
@pytest.mark.parametrize("shape", SHAPES, ids="{0[0]}x{0[1]}".format)
def bench_entropy(contest, shape, gradient):
    rng = np.random.default_rng(0)
    x = rng.normal(0, 3, shape).astype(np.float32)
    contest(
        "entropy with gradient" if gradient else "entropy",
        f"{shape[0]:,} x {shape[1]:,} float32",
        ours=Contestant("fastnlp", partial(_ours, x, gradient)),
        peers=[prepared("torch", _torch, x, gradient), prepared("SciPy", _scipy, x, gradient)],
        expect=_truth(x, gradient),
        rtol=2e-4,
        atol=1e-6,
        bytes=(2 if gradient else 1) * x.nbytes,
    )


def _ours(x, gradient):
    if not gradient:
        return [fastnlp.entropy(x)]
    h, pullback = fastnlp.vjp(fastnlp.entropy)(x)
    return [h, pullback(np.ones_like(h)).input]


def _truth(x, gradient):
    h, dx = np.empty(len(x)), np.empty_like(x)
    for n, row in enumerate(x.astype(np.float64)):
        log_p = row - row.max()
        log_p -= np.log(np.exp(log_p).sum())
        h[n] = -(np.exp(log_p) * log_p).sum()
        dx[n] = -np.exp(log_p) * (log_p + h[n])
    return [h, dx] if gradient else [h]


def _torch(x, gradient):
    import torch

    def entropy(logits):
        log_p = torch.log_softmax(logits, dim=-1)
        return -(log_p.exp() * log_p).sum(dim=-1)

    t = torch.from_numpy(x)

    def with_gradient():
        leaf = t.detach().requires_grad_()
        h = entropy(leaf)
        return [h.detach(), torch.autograd.grad(h.sum(), leaf)[0]]

    return with_gradient if gradient else lambda: [entropy(t)]


def _scipy(x, gradient):
    from scipy import special

    def call():
        log_p = special.log_softmax(x, axis=1)
        p = np.exp(log_p)
        h = -(p * log_p).sum(axis=1)
        return [h, -p * (log_p + h[:, None])] if gradient else [h]

    return call
