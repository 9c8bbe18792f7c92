"""Loss of a linear classifier: forward alone, and with the gradients of input and weight.

Flops: 2 N V D forward, 6 N V D with both gradients. Gradients are allocated inside the timed call, by everybody. The
bare GEMMs, into arrays allocated beforehand, are the floor: they compute no loss.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import fastnlp
from bench.harness import Contestant, prepared

N, V = 1_024, 32_000


@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "gradients"])
@pytest.mark.parametrize("d", [64, 256])
@pytest.mark.parametrize("ignored", [0.0, 0.8], ids="{:.0%} ignored".format)
def bench_linear_cross_entropy(contest, d, ignored, gradient):
    rng = np.random.default_rng(0)
    x, w = (rng.normal(0, 0.3, shape).astype(np.float32) for shape in ((N, d), (V, d)))
    target = rng.integers(0, V, N)
    target[rng.random(N) < ignored] = -100
    ours = fastnlp.value_and_grad(fastnlp.linear_cross_entropy) if gradient else fastnlp.linear_cross_entropy
    truth = _truth(x, w, target, gradient)
    contest(
        "linear_cross_entropy with gradients" if gradient else "linear_cross_entropy",
        f"N={N:,} V={V:,} D={d}, {ignored:.0%} ignored",
        ours=Contestant("fastnlp, NumPy arrays", partial(ours, x, w, target), result=_flat),
        peers=[
            Contestant("bare GEMMs, NumPy", _gemms(x, w, gradient), result=lambda _: truth),
            prepared("fastnlp, tensors", _tensors, x, w, target, gradient),
            prepared("torch eager", _torch, x, w, target, gradient),
            prepared("torch, 256 rows a chunk", _torch_chunked, x, w, target, gradient),
        ],
        expect=truth,
        rtol=1e-4,
        atol=1e-6,
        flops=(6 if gradient else 2) * np.count_nonzero(target >= 0) * V * d,
        note="The bare GEMMs cover all rows and are the floor without ignored ones; their result is not checked.",
    )


def _truth(x, w, target, gradient):
    kept = np.flatnonzero(target >= 0)
    xx, ww, rows = x[kept].astype(np.float64), w.astype(np.float64), np.arange(len(kept))
    z = xx @ ww.T
    z -= z.max(axis=1, keepdims=True)
    loss = (np.log(np.exp(z).sum(axis=1)) - z[rows, target[kept]]).mean()
    if not gradient:
        return [loss]
    dz = np.exp(z)
    dz /= dz.sum(axis=1, keepdims=True)
    dz[rows, target[kept]] -= 1
    dz /= len(kept)
    dx = np.zeros(x.shape)
    dx[kept] = dz @ ww
    return [loss, dx, dz.T @ xx]


def _flat(value):
    if not isinstance(value, tuple):
        return [float(value)]
    loss, grads = value
    return [float(loss), *(np.asarray(g) for g in grads if g is not None)]


def _gemms(x, w, gradient):
    z, dx, dw = np.zeros((len(x), len(w)), x.dtype), np.empty_like(x), np.empty_like(w)

    def call():
        np.matmul(x, w.T, out=z)
        if gradient:
            np.matmul(z, w, out=dx)
            np.matmul(z.T, x, out=dw)

    return call


def _contestant(name, loss_of, x, w, target, gradient):
    import torch

    labels = torch.from_numpy(target)

    def call():
        xx, ww = (torch.from_numpy(a).requires_grad_(gradient) for a in (x, w))
        loss = loss_of(xx, ww, labels)
        return (loss.detach(), torch.autograd.grad(loss, (xx, ww))) if gradient else loss

    return Contestant(name, call, result=_flat)


def _tensors(*args):
    import fastnlp.torch

    return _contestant("fastnlp, tensors", fastnlp.torch.linear_cross_entropy, *args)


def _torch(*args):
    from torch.nn import functional as F  # noqa: N812

    return _contestant("torch eager", lambda x, w, t: F.cross_entropy(F.linear(x, w), t), *args)


def _torch_chunked(*args):
    try:
        from torch.nn import LinearCrossEntropyOptions
    except ImportError as error:
        raise ImportError("this torch has no chunked linear_cross_entropy") from error
    from torch.nn.functional import linear_cross_entropy

    options = LinearCrossEntropyOptions(batch_chunk_size=256)
    return _contestant("torch, 256 rows a chunk", lambda x, w, t: linear_cross_entropy(x, w, t, options=options), *args)
