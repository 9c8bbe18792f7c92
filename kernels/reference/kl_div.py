"""Kullback-Leibler divergence element by element, from log-probabilities x, and its gradients.

    probabilities t:        l = t (log t - x)          dl/dx = -t          dl/dt = log t + 1 - x
    log-probabilities t:    l = e**t (t - x)           dl/dx = -e**t       dl/dt = e**t (t - x + 1)

0 log 0 = 0: an element without mass in t counts for nothing, whatever x is.
"""

from __future__ import annotations

import numpy as np


def elements(x, target, log_target, out):  # (S,) each
    """out = l."""
    _losses(x, target, log_target, out)


def total(x, target, log_target, block, sums):  # (S,), (S,), float64 (S / block,)
    """Sums of l over blocks of `block` elements."""
    for b in range(len(sums)):
        part = slice(b * block, (b + 1) * block)
        losses = np.empty_like(x[part])
        _losses(x[part], target[part], log_target, losses)
        sums[b] = losses.sum(dtype=np.float64)


@np.errstate(divide="ignore", invalid="ignore", over="ignore")
def gradient(x, target, log_target, scale, dx, dtarget):  # (S,), (S,), (S,) or None each
    """dx = scale dl/dx and dtarget = scale dl/dt; those that are None are left out."""
    scale = x.dtype.type(scale)
    mass = np.exp(target) if log_target else target
    if dx is not None:
        np.multiply(mass, -scale, out=dx)
    if dtarget is not None:
        np.subtract(target if log_target else np.log(target), x, out=dtarget)
        dtarget += 1
        if log_target:
            dtarget *= mass
            dtarget[mass == 0] = 0
        dtarget *= scale


@np.errstate(divide="ignore", invalid="ignore", over="ignore")
def _losses(x, target, log_target, out):
    mass = np.exp(target) if log_target else target
    np.subtract(target if log_target else np.log(target), x, out=out)
    out *= mass
    out[mass == 0] = 0
