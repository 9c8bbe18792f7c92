"""What the kernels of divergences share: sums and gradients over a row of two arrays of logits, or a part of one."""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cpu._divergence import in_order, kl_slope, kl_term, log_ratio, mixture
from fastnlp.kernels.cpu._jit import kernel_part
from fastnlp.kernels.cpu._rows import BLOCK
from fastnlp.kernels.scalar import exp


@kernel_part
def kl_sum(y, x, two):  # (V,), (V,)
    """Return the sum of p h(log p/q) as float64."""
    total = 0.0
    for begin in range(0, y.size, BLOCK):
        one, other = y[begin : begin + BLOCK], x[begin : begin + BLOCK]
        partial = y.dtype.type(0)
        for v in range(one.size):
            p = exp(two.scale * (one[v] - two.top_p)) * two.inverse_p
            q = exp(two.scale * (other[v] - two.top_q)) * two.inverse_q
            partial += kl_term(p, q, log_ratio(one[v], other[v], two))
        total += np.float64(partial)
    return total


@kernel_part
def kl_sum_and_slope_of_q(y, x, two, mass, factor, out):  # (V,) each
    """Do what `kl_sum` and `kl_slope_of_q` do, at once."""
    total = 0.0
    for begin in range(0, y.size, BLOCK):
        one, other = y[begin : begin + BLOCK], x[begin : begin + BLOCK]
        partial = y.dtype.type(0)
        for v in range(one.size):
            p = exp(two.scale * (one[v] - two.top_p)) * two.inverse_p
            q = exp(two.scale * (other[v] - two.top_q)) * two.inverse_q
            partial += kl_term(p, q, log_ratio(one[v], other[v], two))
            out[begin + v] = kl_slope(p, q, mass, factor)
        total += np.float64(partial)
    return total


@kernel_part
def js_sums(y, x, two, beta):  # (V,), (V,)
    """Return the sums of p h(log p/m) and q h(log q/m) as float64."""
    total_p, total_q = 0.0, 0.0
    gamma = y.dtype.type(1 - beta)
    for begin in range(0, y.size, BLOCK):
        one, other = y[begin : begin + BLOCK], x[begin : begin + BLOCK]
        partial_p, partial_q = y.dtype.type(0), y.dtype.type(0)
        for v in range(one.size):
            of_p, of_q, _, _ = mixture(one[v], other[v], two, y.dtype.type(beta), gamma)
            partial_p += of_p
            partial_q += of_q
        total_p += np.float64(partial_p)
        total_q += np.float64(partial_q)
    return total_p, total_q


@in_order
def kl_slope_of_q(y, x, two, mass, factor, out):  # (V,) each
    """out = factor (mass q - p), the gradient of KL(p || q) in the logits of q; `out` may be x."""
    for v in range(y.size):
        p = exp(two.scale * (y[v] - two.top_p)) * two.inverse_p
        q = exp(two.scale * (x[v] - two.top_q)) * two.inverse_q
        out[v] = kl_slope(p, q, mass, factor)


@in_order
def kl_slope_of_p(y, x, two, mean, factor, out):  # (V,) each
    """out = factor p (log p/q - mean), the gradient of KL(p || q) in the logits of p; `out` may be y."""
    for v in range(y.size):
        p = exp(two.scale * (y[v] - two.top_p)) * two.inverse_p
        slope = p * (log_ratio(y[v], x[v], two) - mean)
        out[v] = factor * (p if p == type(p)(0) else slope)


@in_order
def js_slope_of_q(y, x, two, beta, gamma, mean, factor, out):  # (V,) each
    """out = factor q (log q/m - mean), the gradient in the logits of q (gamma is not in it); `out` may be x."""
    for v in range(y.size):
        _, _, q, r = mixture(y[v], x[v], two, beta, gamma)
        out[v] = factor * (q * (r - mean))
