"""Divergence of two softmaxes from their logits, and its gradients (the equations: ``reference/_divergence.py``).

One launch gives the divergence and dx. D is symmetric under an exchange of both distributions, and of beta with
1 - beta, so dtarget is the dx of a second launch with the roles exchanged: a teacher seldom wants one.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._teacher import rows


def forward(x, target, beta, scale, loss):  # (N, V), (N, V), (N,)
    """loss = D."""
    rows(x, target, False, _all(x), beta, 1 - beta, scale, 1.0, 0.0, None, loss, None)


def gradient(x, target, beta, scale, upstream, loss, dx, dtarget):
    # (N, V), (N, V), (N,), (N,), (N, V) or None, (N, V) or None
    """loss = D, and dx = upstream dD/dx, dtarget = upstream dD/dtarget; those that are None are left out."""
    label = _all(x)
    if dx is not None:
        rows(x, target, False, label, beta, 1 - beta, scale, 1.0, 0.0, upstream, loss, dx)
    if dtarget is not None:
        rows(target, x, False, label, 1 - beta, beta, scale, 1.0, 0.0, upstream, loss, dtarget)


def _all(x):
    """Return labels by which all rows count."""
    return x.library.zeros(len(x), np.int64)
