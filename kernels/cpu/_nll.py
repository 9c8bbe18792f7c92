"""Parts of a row's negative log-likelihood of one class, and of its gradient; the row is read from memory once.

What may be small is never a difference: the target's exponential, which is known in float64, is kept out of the float32
sum of the others, the `rest`. With e_v = exp(x_v - top):

    l = (top - x_t) + log(rest + e_t)     dl/dx_v = e_v / (rest + e_t)     dl/dx_t = -rest / (rest + e_t)

The row is passed block by block, while the next one is on its way; a new maximum rescales the sum so far.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from fastnlp.kernels.cpu._jit import kernel_part
from fastnlp.kernels.cpu._memory import LINE, prefetch
from fastnlp.kernels.cpu._rows import BLOCK, maximum, row_max
from fastnlp.kernels.scalar import EXP_SCALE, scaled_exp

_UNSCALE = 1 / EXP_SCALE
_FAR = 1e4  # exp(-_FAR) is 0


@kernel_part
def row_rest(row, target):  # (V,)
    """Return max(row), and sum(exp(row - max(row))) without the target's."""
    top, total = row[target], 0.0
    for i, j in ((0, target), (target + 1, row.size)):
        top, total = _add_exp(row[i:j], top, total)
    return top, _unscaled(total, row)


@kernel_part
def row_rest_and_exp(row, target, out, tops):  # (V,), (V,), (V / BLOCK + 2,): scratch
    """As `row_rest`, and write exp(row - max(row)) to `out`, but -rest for the target."""
    left, top, total = (target + BLOCK - 1) // BLOCK, row[target], 0.0
    for i, j, k in ((0, target, 0), (target + 1, row.size, left)):
        top, total = _write_exp(row[i:j], top, total, out[i:j], tops[k:])
    for i, j, k in ((0, target, 0), (target + 1, row.size, left)):
        _to_top(out[i:j], tops[k:], top)
    rest = _unscaled(total, row)
    out[target] = -rest
    return top, rest


# In the order written: the lse, which the same numbers give, must not get into a small loss.
@njit(fastmath=False, error_model="numpy")
def nll_and_lse(top, logit, rest):
    """Return the loss, the log-sum-exp of the row, and the sum of exponentials, from what `row_rest` gave."""
    below = np.float64(top) - np.float64(logit)
    e = math.exp(-below)
    log_total = math.log1p(rest) if below == 0 else math.log(rest + e)
    return below + log_total, np.float64(top) + log_total, rest + e


@kernel_part
def _add_exp(x, top, total):  # (V,)
    """Add sum(2**64 exp(x - top)) to `total`, raising top where x is larger; return both."""
    for begin in range(0, x.size, BLOCK):
        top, total = _raised(x, begin, top, total)
        block, partial = x[begin : begin + BLOCK], x.dtype.type(0)
        level = x.dtype.type(0) if top == -np.inf else top
        for j in range(block.size):
            partial += scaled_exp(block[j] - level)
        total += np.float64(partial)
    return top, total


@kernel_part
def _write_exp(x, top, total, out, tops):  # (V,), (V,), (blocks,)
    """As `_add_exp`, and write exp(x - top) to `out`, by the top at that time, which is written to `tops`."""
    nothing, unscale = scaled_exp(x.dtype.type(-_FAR)), x.dtype.type(_UNSCALE)
    for begin in range(0, x.size, BLOCK):
        top, total = _raised(x, begin, top, total)
        block, written, partial = x[begin : begin + BLOCK], out[begin : begin + BLOCK], x.dtype.type(0)
        level = x.dtype.type(0) if top == -np.inf else top
        for j in range(block.size):
            e = scaled_exp(block[j] - level)
            written[j] = (e - nothing) * unscale
            partial += e
        total += np.float64(partial)
        tops[begin // BLOCK] = top
    return top, total


@kernel_part
def _raised(x, begin, top, total):  # (V,)
    """Return the maximum so far and the sum so far in its terms, before the block of x from `begin` is added."""
    if x.size > BLOCK:  # in a short row, nothing is gained
        for j in range(begin + BLOCK, begin + 2 * BLOCK, LINE // x.itemsize):
            prefetch(x, j)
    higher = maximum(top, row_max(x[begin : begin + BLOCK]))
    if higher > top:
        total *= math.exp(np.float64(top) - np.float64(higher))
        top = higher
    return top, total


@kernel_part
def _to_top(x, tops, top):  # (V,), (blocks,)
    """Bring exponentials by the tops of their blocks to one top."""
    for begin in range(0, x.size, BLOCK):
        if tops[begin // BLOCK] != top:
            block = x[begin : begin + BLOCK]
            factor = x.dtype.type(math.exp(np.float64(tops[begin // BLOCK]) - np.float64(top)))
            for j in range(block.size):
                block[j] *= factor


@kernel_part
def _unscaled(total, x):  # (V,)
    """Return a sum of scaled exponentials without the factor, and without the little that -inf adds to it."""
    return 0.0 if total <= 2.0 * x.size * np.float64(scaled_exp(x.dtype.type(-_FAR))) else total * _UNSCALE
