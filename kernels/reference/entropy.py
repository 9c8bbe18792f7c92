"""Entropy of softmax, and its gradient.

    p = softmax(scale * x)      H = -sum_v p_v log p_v      dx_v = scale dH p_v (-log p_v - H)

With d = scale (x - max x), e = exp(d) and Z = sum e:  H = log Z - sum_v e_v d_v / Z,  two terms that are not negative.
log Z comes from the sum without the maxima, so that a small H keeps its digits; a class at -inf counts for nothing.
"""

from __future__ import annotations

import numpy as np


def forward(x, scale, out):  # (N, V), (N,)
    """out = H."""
    out[...] = _sums(x, scale)[-1]


def gradient(x, scale, upstream, dx):  # (N, V), (N,), (N, V)
    """dx = upstream dH/dx."""
    d, e, total, mean, _ = _sums(x, scale)
    with np.errstate(invalid="ignore"):
        np.subtract(mean[:, None], d, out=d)
        d[e == 0] = 0
        np.multiply(d, e, out=dx)
        dx *= (upstream * x.dtype.type(scale) / total)[:, None]


@np.errstate(invalid="ignore", divide="ignore", over="ignore")
def _sums(x, scale):
    """Return d, e, Z, the mean of d under p, and H."""
    d = x - np.max(x, axis=1, initial=-np.inf, keepdims=True)
    d *= x.dtype.type(scale)
    e = np.exp(d)
    first = (d == 0).sum(axis=1)
    rest = np.where(d == 0, 0, e).sum(axis=1, dtype=np.float64)
    weighted = np.where(e == 0, 0, d * e).sum(axis=1, dtype=np.float64)
    total = first + rest
    mean = weighted / total
    entropy = np.log(first) + np.log1p(rest / first) - mean
    return d, e, total.astype(x.dtype), mean.astype(x.dtype), entropy
