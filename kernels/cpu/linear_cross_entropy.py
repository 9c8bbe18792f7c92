"""Cross-entropy of a linear classifier, chunk by chunk (the equations: ``reference/linear_cross_entropy.py``).

Schedule: chunks of `rows` rows over all classes go through one reused buffer; a GEMM writes the chunk's logits, one
kernel adds the bias, takes the loss and turns the logits into their gradient in place, two GEMMs carry that on. Over
whole-batch GEMMs the chunks cost the accumulation of dW, done through a scratch that stays in cache.
Flops: 2 N V D for the loss, 6 N V D with both gradients. Bytes beside the GEMMs': one read and one write of the logits.
"""

from __future__ import annotations

import numpy as np

from fastnlp._threads import run
from fastnlp.kernels.cpu._jit import jit
from fastnlp.kernels.cpu._rows import row_divide, row_exp_in_place, row_max, row_nll, rows_a_task
from fastnlp.kernels.cpu.cross_entropy import row_loss
from fastnlp.kernels.cpu.linear import add_column_sums


def forward(x, weight, bias, target, nll, rows, matmul):  # (N, D), (V, D), (V,) or None, (N,), (N,)
    """nll = cross-entropy(x weight' + bias, target)."""
    bias = _bias_or_empty(bias, x.dtype)
    for chunk, logits in _chunks(x, weight, rows, matmul):
        run(_loss, len(logits), logits, bias, target[chunk], nll[chunk], grain=rows_a_task(logits.shape[1]))


def gradient(x, weight, bias, target, scale, nll, dx, dweight, dbias, rows, block, matmul):
    # (N, D), (V, D), (V,) or None, (N,), (N,), (N,), (N, D) or None, (V, D) or None, (V,) or None
    """Nll as in forward, and the gradients of sum_n scale_n nll_n, in one pass; those that are None are left out.

    dweight is added to `block` classes at a time.
    """
    bias = _bias_or_empty(bias, x.dtype)
    if dbias is not None:
        dbias[...] = 0
    if dweight is not None and not len(x):
        dweight[...] = 0
    for chunk, logits in _chunks(x, weight, rows, matmul):
        args = (logits, bias, target[chunk], scale[chunk], nll[chunk])
        run(_gradient, len(logits), *args, grain=rows_a_task(logits.shape[1]))
        if dx is not None:
            matmul(logits, weight, out=dx[chunk])
        if dweight is not None:
            _add_product(logits.T, x[chunk], dweight, block, chunk.start == 0, matmul)
        if dbias is not None:
            add_column_sums(logits, dbias)


def _add_product(a, b, total, block, first, matmul):  # (V, R), (R, D), (V, D)
    """total += a b, or total = a b for the first; `block` rows at a time, so that the product stays in cache."""
    if first:
        matmul(a, b, out=total)
        return
    scratch = np.empty((min(block, len(total)), total.shape[1]), total.dtype)
    for begin in range(0, len(total), block):
        part = total[begin : begin + block]
        product = scratch[: len(part)]
        matmul(a[begin : begin + block], b, out=product)
        part += product


def _chunks(x, weight, rows, matmul):
    buffer = np.empty((min(rows, x.shape[0]), weight.shape[0]), x.dtype)
    for begin in range(0, x.shape[0], rows):
        chunk = slice(begin, min(begin + rows, x.shape[0]))
        logits = buffer[: chunk.stop - begin]
        matmul(x[chunk], weight.T, out=logits)
        yield chunk, logits


def _bias_or_empty(bias, dtype):
    return np.empty(0, dtype) if bias is None else bias


@jit("(int64, int64, {f}[:, ::1], {f}[::1], int64[::1], {f}[::1])")
def _loss(begin, end, logits, bias, target, nll):
    for n in range(begin, end):
        row = logits[n]
        for v in range(bias.size):
            row[v] += bias[v]
        nll[n] = row_loss(row, target[n])


@jit("(int64, int64, {f}[:, ::1], {f}[::1], int64[::1], {f}[::1], {f}[::1])")
def _gradient(begin, end, logits, bias, target, scale, nll):
    for n in range(begin, end):
        row = logits[n]
        for v in range(bias.size):
            row[v] += bias[v]
        top = row_max(row)
        logit = row[target[n]]
        total = row_exp_in_place(row, top, row.dtype.type(1))
        nll[n] = row_nll(total, top, logit)
        row_divide(row, total / scale[n])
        row[target[n]] -= scale[n]
