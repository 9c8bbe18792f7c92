"""Linear map with bias and activation, and its gradients.

    y = f(x W' + b)        dz = dy f'(y)      dx = dz W      dW = dz' x      db = sum_n dz_n

Activations are those whose derivative follows from their value, so that y is all that is kept.
"""

from __future__ import annotations

import numpy as np


def forward(x, weight, bias, activation, out, matmul):  # (N, D), (V, D), (V,) or None, (N, V)
    """out = f(x weight' + bias)."""
    matmul(x, weight.T, out=out)
    if bias is not None:
        out += bias
    if activation == "relu":
        np.maximum(out, 0, out=out)
    elif activation == "tanh":
        np.tanh(out, out=out)
    elif activation == "sigmoid":
        with np.errstate(over="ignore"):
            np.negative(out, out=out)
            np.exp(out, out=out)
            out += 1
            np.reciprocal(out, out=out)


def activation_backward(y, dy, activation, dz):  # (N, V) each
    """dz = dy f'(z), from y = f(z)."""
    if activation == "relu":
        np.multiply(dy, y > 0, out=dz)
    elif activation == "tanh":
        np.multiply(dy, 1 - y * y, out=dz)
    elif activation == "sigmoid":
        np.multiply(dy, y * (1 - y), out=dz)


def backward(dz, x, weight, dx, dweight, dbias, matmul):  # (N, V), (N, D), (V, D); outputs may be None
    """Fill those of dx = dz weight, dweight = dz' x, dbias = sum_n dz that are not None."""
    if dx is not None:
        matmul(dz, weight, out=dx)
    if dweight is not None:
        matmul(dz.T, x, out=dweight)
    if dbias is not None:
        dz.sum(axis=0, out=dbias)
