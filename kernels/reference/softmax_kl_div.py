"""Divergence of two softmaxes from their logits, and its gradients (the equations: ``_divergence.py``)."""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.reference._divergence import divergence, log_softmax, slope


def forward(x, target, beta, scale, loss):  # (N, V), (N, V), (N,)
    """loss = D."""
    loss[...] = divergence(log_softmax(target, scale), log_softmax(x, scale), beta)


def gradient(x, target, beta, scale, upstream, loss, dx, dtarget):
    # (N, V), (N, V), (N,), (N,), (N, V) or None, (N, V) or None
    """loss = D, and dx = upstream dD/dx, dtarget = upstream dD/dtarget; those that are None are left out."""
    log_p, log_q = log_softmax(target, scale), log_softmax(x, scale)
    loss[...] = divergence(log_p, log_q, beta)
    factor = (upstream.astype(np.float64) * scale)[:, None]
    if dx is not None:
        np.multiply(slope(log_p, log_q, beta), factor, out=dx, casting="same_kind")
    if dtarget is not None:
        np.multiply(slope(log_q, log_p, 1 - beta), factor, out=dtarget, casting="same_kind")
