"""Entropy of softmax, and its gradient (the equations: ``reference/entropy.py``).

Schedule: one row at a time, so that its later passes find it in cache: maximum; sums over the exponentials; for the
gradient the exponentials once more. Bytes: one read of the logits, and for the gradient one write.
"""

from __future__ import annotations

import math

import numpy as np

from fastnlp._threads import run
from fastnlp.kernels.cpu._jit import jit, kernel_part
from fastnlp.kernels.cpu._rows import BLOCK, row_max, rows_a_task
from fastnlp.kernels.scalar import exp


def forward(x, scale, out):  # (N, V), (N,)
    """out = H."""
    run(_forward, x.shape[0], x, x.dtype.type(scale), out, grain=rows_a_task(x.shape[1]))


def gradient(x, scale, upstream, dx):  # (N, V), (N,), (N, V)
    """dx = upstream dH/dx."""
    run(_gradient, x.shape[0], x, x.dtype.type(scale), upstream, dx, grain=rows_a_task(x.shape[1]))


_LOWEST = -1e4  # its exponential is 0, and 0 times it


@kernel_part
def _sums(x, top, scale):  # (V,)
    """Return how many entries are the maximum, and the sums of e and of e d over the others, in float64.

    What is not to be summed is chosen before exp: a conditional sum would not vectorise.
    """
    first, rest, weighted = 0.0, 0.0, 0.0
    zero, lowest = x.dtype.type(0), x.dtype.type(_LOWEST)
    for begin in range(0, x.size, BLOCK):
        block = x[begin : begin + BLOCK]
        at_top, e_sum, ed_sum = zero, zero, zero
        for j in range(block.size):
            d = scale * (block[j] - top)
            at_top += x.dtype.type(d == zero)
            d = lowest if d == zero else d
            d = lowest if d < lowest else d
            e = exp(d)
            e_sum += e
            ed_sum += e * d
        first += np.float64(at_top)
        rest += np.float64(e_sum)
        weighted += np.float64(ed_sum)
    return first, rest, weighted


@jit("(int64, int64, {f}[:, ::1], {f}, {f}[::1])")
def _forward(begin, end, x, scale, out):
    for n in range(begin, end):
        first, rest, weighted = _sums(x[n], row_max(x[n]), scale)
        out[n] = math.log(first) + math.log1p(rest / first) - weighted / (first + rest)


@jit("(int64, int64, {f}[:, ::1], {f}, {f}[::1], {f}[:, ::1])")
def _gradient(begin, end, x, scale, upstream, dx):
    for n in range(begin, end):
        row, written = x[n], dx[n]
        top, lowest = row_max(row), row.dtype.type(_LOWEST)
        first, rest, weighted = _sums(row, top, scale)
        mean = row.dtype.type(weighted / (first + rest))
        factor = row.dtype.type(scale * upstream[n] / (first + rest))
        for v in range(row.size):
            d = scale * (row[v] - top)
            d = lowest if d < lowest else d
            written[v] = factor * (exp(d) * (mean - d))
