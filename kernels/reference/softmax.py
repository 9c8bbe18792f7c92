"""Softmax, log-softmax and log-sum-exp of rows, and their gradients.

    lse_n = log sum_v exp(x_nv)      p_nv = exp(x_nv - lse_n)      (x already divided by the temperature)

The maximum of a row is subtracted before exp, so that nothing overflows. The gradient of log-sum-exp starts from x too:
a rounded lse of 10,000 would leave it 3 digits in float32. NaN comes without a warning, as from compiled code.
"""

from __future__ import annotations

import numpy as np


def softmax(x, out, scale):  # (N, V), (N, V)
    """out = softmax(scale * x)."""
    _shifted(x, out, scale)
    np.exp(out, out=out)
    out /= out.sum(axis=1, keepdims=True)


def log_softmax(x, out, scale):  # (N, V), (N, V)
    """out = log softmax(scale * x)."""
    _shifted(x, out, scale)
    with np.errstate(divide="ignore"):
        out -= np.log(np.exp(out).sum(axis=1, keepdims=True))


def logsumexp(x, out):  # (N, V), (N,)
    """out = log sum exp(x); +-inf where the maximum is infinite."""
    top = np.max(x, axis=1, initial=-np.inf, keepdims=True)
    top[~np.isfinite(top)] = 0
    with np.errstate(divide="ignore", over="ignore"):
        out[...] = np.log(np.exp(x - top).sum(axis=1)) + top[:, 0]


@np.errstate(invalid="ignore")
def softmax_backward(y, dy, dx, scale):  # (N, V) each
    """dx = scale * y (dy - <dy, y>), from y = softmax(scale * x)."""
    np.multiply(dy, y, out=dx)
    total = dx.sum(axis=1, keepdims=True)
    np.subtract(dy, total, out=dx)
    dx *= y
    dx *= scale


@np.errstate(invalid="ignore")
def log_softmax_backward(y, dy, dx, scale):  # (N, V) each
    """dx = scale * (dy - exp(y) sum(dy)), from y = log softmax(scale * x)."""
    np.exp(y, out=dx)
    dx *= -dy.sum(axis=1, keepdims=True)
    dx += dy
    dx *= scale


@np.errstate(invalid="ignore", divide="ignore")
def logsumexp_backward(x, dlse, dx):  # (N, V), (N,), (N, V)
    """dx = dlse softmax(x)."""
    _shifted(x, dx, 1)
    np.exp(dx, out=dx)
    dx *= (dlse / dx.sum(axis=1))[:, None]


def _shifted(x, out, scale):
    # A row of -inf, or one that holds +inf, is NaN. Scaled last: at a small temperature the maximum may overflow.
    with np.errstate(invalid="ignore", over="ignore"):
        np.subtract(x, np.max(x, axis=1, initial=-np.inf, keepdims=True), out=out)
        out *= x.dtype.type(scale)
