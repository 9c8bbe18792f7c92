"""Cross-entropy of logits, the loss alone and with its gradient.

Bytes: the logits are read once, and their gradient is written once (values of a row are neglected). The gradient is
allocated inside the timed call, by everybody, as in a training step.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import fastnlp
from bench.harness import Contestant, prepared

SHAPES = [(8, 10), (1, 32_768), (8, 32_768), (1_024, 32_768)]


@pytest.fixture(params=SHAPES, ids="{0[0]}x{0[1]}".format)
def case(request):
    rng = np.random.default_rng(0)
    n, v = request.param
    return rng.normal(0, 4, (n, v)).astype(np.float32), rng.integers(0, v, n)


@pytest.mark.parametrize("gradient", [False, True], ids=["loss", "gradient"])
def bench_cross_entropy(contest, case, gradient):
    x, target = case
    ours = fastnlp.value_and_grad(fastnlp.cross_entropy) if gradient else fastnlp.cross_entropy
    contest(
        "cross_entropy with gradient" if gradient else "cross_entropy",
        f"{x.shape[0]:,} x {x.shape[1]:,} float32",
        ours=Contestant("fastnlp", partial(ours, x, target), result=_flat),
        peers=[prepared("torch", _torch, x, target, gradient), prepared("SciPy", _scipy, x, target, gradient)],
        expect=partial(_right, x, target, gradient),
        bytes=(2 if gradient else 1) * x.nbytes,
    )


def _flat(value):
    loss, grads = value if isinstance(value, tuple) else (value, None)
    return [float(loss)] if grads is None else [float(loss), np.asarray(grads[0])]


def _torch(x, target, gradient):
    import torch

    t, labels = torch.from_numpy(x), torch.from_numpy(target)

    def loss():
        return torch.nn.functional.cross_entropy(t, labels)

    def with_gradient():
        leaf = t.detach().requires_grad_()
        value = torch.nn.functional.cross_entropy(leaf, labels)
        return value.detach(), torch.autograd.grad(value, leaf)

    return Contestant("torch", with_gradient if gradient else loss, result=_flat)


def _scipy(x, target, gradient):
    from scipy import special

    rows = np.arange(len(x))

    def loss():
        return -special.log_softmax(x, axis=1)[rows, target].mean(dtype=np.float64)

    def with_gradient():
        log_p = special.log_softmax(x, axis=1)
        p = np.exp(log_p)
        p[rows, target] -= 1
        p /= len(x)
        return -log_p[rows, target].mean(dtype=np.float64), (p,)

    return Contestant("SciPy", with_gradient if gradient else loss, result=_flat)


def _right(x, target, gradient, got):
    """Hold the loss, and up to 32 rows of the gradient, against float64."""
    z = x.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    lse = np.log(np.exp(z).sum(axis=1))
    np.testing.assert_allclose(got[0], (lse - z[np.arange(len(x)), target]).mean(), rtol=2e-6)
    if gradient:
        rows = np.linspace(0, len(x) - 1, min(len(x), 32)).astype(int)
        want = np.exp(z[rows] - lse[rows, None])
        want[np.arange(len(rows)), target[rows]] -= 1
        np.testing.assert_allclose(got[1][rows], want / len(x), rtol=1e-4, atol=1e-7 / len(x))
