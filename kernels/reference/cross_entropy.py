"""Cross-entropy of logits against class indices, and its gradient.

    nll_n = log sum_v exp(x_nv) - x_n,t(n)      dx_nv = s_n (p_nv - [v = t(n)])

A row with a negative target counts for nothing: its loss and its gradient are zero.
"""

from __future__ import annotations

import numpy as np


def forward(x, target, nll):  # (N, V), (N,), (N,)
    """nll = -log softmax(x)[target]."""
    counted = target >= 0
    rows = np.flatnonzero(counted)
    with np.errstate(invalid="ignore", divide="ignore"):
        shifted = x - np.max(x, axis=1, initial=-np.inf, keepdims=True)
        nll[...] = np.log(np.exp(shifted).sum(axis=1))
        nll[rows] -= shifted[rows, target[rows]]
    nll[~counted] = 0


def gradient(x, target, scale, nll, dx):  # (N, V), (N,), (N,), (N,), (N, V)
    """Nll as in forward, and dx = scale d nll / dx, in one pass."""
    counted = target >= 0
    rows = np.flatnonzero(counted)
    with np.errstate(invalid="ignore", divide="ignore"):
        np.subtract(x, np.max(x, axis=1, initial=-np.inf, keepdims=True), out=dx)
        nll[rows] = -dx[rows, target[rows]]
        np.exp(dx, out=dx)
        total = dx.sum(axis=1)
        nll[rows] += np.log(total[rows])
        dx *= (scale / total)[:, None]
    dx[rows, target[rows]] -= scale[rows]
    nll[~counted] = 0
    dx[~counted] = 0
