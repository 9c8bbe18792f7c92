"""What row kernels share: the maximum and the sum of exponentials of one row, vectorised, and the cut into ranges.

A float comparison with a branch does not vectorise; `llvm.maxnum` does. Sums run in blocks whose totals are added in
float64, so that a float32 row of 250,000 keeps its accuracy. Both are the same bits wherever the row is computed.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import njit
from numba.extending import intrinsic

from fastnlp.kernels.cpu._jit import kernel_part
from fastnlp.kernels.cpu._memory import LINE, prefetch
from fastnlp.kernels.scalar import EXP_SCALE, scaled_exp

BLOCK = 1024
_ELEMENTS_A_TASK = 1 << 16
_UNSCALE = 1 / EXP_SCALE


def rows_a_task(columns: int) -> int:
    """Return how many rows of `columns` elements make one task: enough to pay for handing it to a thread."""
    return max(1, _ELEMENTS_A_TASK // max(1, columns))


@intrinsic
def maximum(typing_context, a, b):
    """Return the larger of two floats, or the one that is not NaN."""

    def generate(context, builder, signature, args):
        kind = args[0].type
        function = builder.module.declare_intrinsic("llvm.maxnum", [kind], ir.FunctionType(kind, [kind, kind]))
        return builder.call(function, args, fastmath=("nnan", "nsz"))

    return a(a, b), generate


@kernel_part
def row_max(x):  # (V,)
    """Return max(x), NaN skipped; -inf for an empty row."""
    top = x.dtype.type(-np.inf)
    for j in range(x.size):
        top = maximum(top, x[j])
    return top


@kernel_part
def _block_exp_sum(x, top, scale):  # (BLOCK,)
    """Return sum(2**64 exp(scale * (x - top))); without the product, a tenth of the time, where scale is one."""
    partial = x.dtype.type(0)
    if scale == x.dtype.type(1):
        for j in range(x.size):
            partial += scaled_exp(x[j] - top)
    else:
        for j in range(x.size):
            partial += scaled_exp(scale * (x[j] - top))
    return np.float64(partial)


@kernel_part
def row_exp_sum(x, top, scale):  # (V,)
    """Return sum(exp(scale * (x - top))) as float64, for x <= top."""
    total = 0.0
    for begin in range(0, x.size, BLOCK):
        total += _block_exp_sum(x[begin : begin + BLOCK], top, scale)
    return total * _UNSCALE


@kernel_part
def row_max_and_exp_sum(x, scale):  # (V,)
    """Return max(x) and sum(exp(scale * (x - max(x)))) as float64, reading x from memory once.

    Block by block, while the next one is on its way; a new maximum rescales the sum so far. Where the maximum is
    infinite, the sum is 0 (nothing but -inf) or NaN.
    """
    top, total = x.dtype.type(-np.inf), 0.0
    for begin in range(0, x.size, BLOCK):
        block = x[begin : begin + BLOCK]
        for j in range(begin + BLOCK, begin + 2 * BLOCK, LINE // x.itemsize):
            prefetch(x, j)
        higher = maximum(top, row_max(block))
        if higher > top:
            total *= math.exp(np.float64(scale) * (np.float64(top) - np.float64(higher)))
            top = higher
        if top != -np.inf:
            total += _block_exp_sum(block, top, scale)
        else:  # nothing to sum, but NaN is kept
            for j in range(block.size):
                total += block[j] if block[j] != block[j] else x.dtype.type(0)
    return top, total * _UNSCALE


@kernel_part
def row_exp(x, top, scale, out):  # (V,), (V,)
    """Write exp(scale * (x - top)) to `out`, which is not `x`, for x <= top; return the sum as float64."""
    total = 0.0
    unscale = x.dtype.type(_UNSCALE)
    for begin in range(0, x.size, BLOCK):
        block = x[begin : begin + BLOCK]
        written = out[begin : begin + BLOCK]
        partial = x.dtype.type(0)
        for j in range(block.size):
            value = scaled_exp(scale * (block[j] - top)) * unscale
            written[j] = value
            partial += value
        total += np.float64(partial)
    return total


@kernel_part
def row_exp_in_place(x, top, scale):  # (V,)
    """Replace x by exp(scale * (x - top)), for x <= top; return the sum as float64.

    Of its own beside `row_exp`: where two arrays may be one, the vector loop is left for a scalar one at run time.
    """
    total = 0.0
    unscale = x.dtype.type(_UNSCALE)
    for begin in range(0, x.size, BLOCK):
        block = x[begin : begin + BLOCK]
        partial = x.dtype.type(0)
        for j in range(block.size):
            value = scaled_exp(scale * (block[j] - top)) * unscale
            block[j] = value
            partial += value
        total += np.float64(partial)
    return total


@kernel_part
def row_divide(x, total):  # (V,)
    """Divide x by `total`."""
    factor = x.dtype.type(1.0 / total)
    for v in range(x.size):
        x[v] *= factor


@njit(fastmath=False, error_model="numpy")
def row_logsumexp(x):  # (V,)
    """Return the maximum of x (0 where it is infinite) and log(sum(exp(x - maximum))), whose sum is log-sum-exp.

    Apart they keep what their float32 sum would round away where logits are large.
    """
    top, total = row_max_and_exp_sum(x, x.dtype.type(1))
    if not math.isfinite(top):  # NaN, or inf where there is one and no NaN
        for j in range(x.size):
            if x[j] != x[j]:
                return x.dtype.type(0), np.nan
        return x.dtype.type(0), np.float64(top)
    return top, math.log(total)
