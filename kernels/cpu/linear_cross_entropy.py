"""Cross-entropy of a linear classifier, chunk by chunk (the equations: ``reference/linear_cross_entropy.py``).

Schedule: chunks of rows over all classes go through one reused buffer; a GEMM writes the chunk's logits, one
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
from fastnlp.kernels.reference import linear_cross_entropy as reference
from fastnlp.kernels.reference._blas import product


def least_workspace(rows, features, classes, itemsize, gradients):
    """Return the least bytes of temporaries with which a batch can be computed."""
    return reference.least_workspace(rows, features, classes, itemsize, gradients)


def forward(x, weight, bias, criterion, kept, loss, lse, stats, workspace, blas):
    # (N, D), (V, D), (V,) or None, Criterion, (K,) or None, (N,), (N,), Stats or None
    """Loss and lse of the rows `kept`, and stats where they are wanted."""
    if not _plain(criterion, None, stats):
        reference.forward(x, weight, bias, criterion, kept, loss, lse, stats, workspace, blas)
        return
    bias = _bias_or_empty(bias, x.dtype)
    for where, _, logits in _chunks(x, weight, kept, workspace, False, product(blas)):
        target, nll = criterion.target[where], np.empty(len(logits), x.dtype)
        run(_loss, len(logits), logits, bias, target, nll, grain=rows_a_task(logits.shape[1]))
        loss[where] = nll
        lse[where] = nll + logits[np.arange(len(logits)), target]


def gradient(x, weight, bias, criterion, kept, scale, lse_scale, loss, lse, stats, dx, dweight, dbias, workspace, blas):
    # as forward; (N,), (N,) or None; (N, D) or None, (V, D) or None, (V,) or None
    """As forward, and the gradients of sum_n scale_n l_n + lse_scale_n lse_n^2; those that are None are left out."""
    if not _plain(criterion, lse_scale, stats):
        reference.gradient(
            x, weight, bias, criterion, kept, scale, lse_scale, loss, lse, stats, dx, dweight, dbias, workspace, blas
        )
        return
    matmul = product(blas)
    bias = _bias_or_empty(bias, x.dtype)
    for total in (dweight, dbias):
        if total is not None:
            total[...] = 0
    block = max(1, min(len(weight), (workspace // 12) // max(1, weight.shape[1] * x.itemsize)))
    for where, xs, logits in _chunks(x, weight, kept, workspace, True, matmul):
        target, nll = criterion.target[where], np.empty(len(logits), x.dtype)
        at = np.arange(len(logits)), target
        of_target = logits[at] + (bias[target] if bias.size else 0)
        run(_gradient, len(logits), logits, bias, target, scale[where], nll, grain=rows_a_task(logits.shape[1]))
        loss[where] = nll
        lse[where] = nll + of_target
        if dx is not None:
            dx[where] = matmul(logits, weight, out=np.empty_like(xs))
        if dweight is not None:
            _add_product(logits.T, xs, dweight, block, False, matmul)
        if dbias is not None:
            add_column_sums(logits, dbias)


def _plain(criterion, lse_scale, stats):
    given = (lse_scale, stats, criterion.probabilities, criterion.class_weight)
    return all(x is None for x in given) and criterion[3:] == (0.0, 1.0, None)


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


def _chunks(x, weight, kept, workspace, gradients, matmul):
    rows = reference._schedule(x, weight, kept, workspace, gradients)[0]
    yield from reference._chunks(x, weight, None, kept, rows, matmul)


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
