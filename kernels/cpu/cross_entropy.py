"""Cross-entropy of logits against class indices, and its gradient (the equations: ``reference/cross_entropy.py``).

Schedule: one row at a time, so that its later passes find it in cache. Loss: maximum, sum of exponentials. Gradient:
maximum, exponentials written with their sum, scale. exp is evaluated once an element, nothing of size (N, V) is kept.
Bytes: one read of the logits, and for the gradient one write.
"""

from __future__ import annotations

import numpy as np

from fastnlp._threads import run
from fastnlp.kernels.cpu._jit import jit, kernel_part
from fastnlp.kernels.cpu._rows import row_divide, row_exp, row_exp_sum, row_max, row_nll, rows_a_task
from fastnlp.kernels.reference import cross_entropy as reference


def forward(x, criterion, loss, lse, stats):  # (N, V), Criterion, (N,), (N,), Stats or None
    """Loss and lse of each row, and stats where they are wanted."""
    if not _plain(criterion, None, stats):
        reference.forward(x, criterion, loss, lse, stats)
        return
    run(_loss, x.shape[0], x, criterion.target, loss, grain=rows_a_task(x.shape[1]))
    _add_target_logits(x, criterion.target, loss, lse)


def gradient(x, criterion, scale, lse_scale, loss, lse, stats, dx):
    # (N, V), Criterion, (N,), (N,) or None, (N,), (N,), Stats or None, (N, V)
    """As forward, and dx = the gradient of sum_n scale_n loss_n + lse_scale_n lse_n^2, in one pass."""
    if not _plain(criterion, lse_scale, stats):
        reference.gradient(x, criterion, scale, lse_scale, loss, lse, stats, dx)
        return
    run(_gradient, x.shape[0], x, criterion.target, scale, loss, dx, grain=rows_a_task(x.shape[1]))
    _add_target_logits(x, criterion.target, loss, lse)


def _plain(criterion, lse_scale, stats):
    given = (lse_scale, stats, criterion.probabilities, criterion.class_weight)
    return all(x is None for x in given) and criterion[3:] == (0.0, 1.0, None)


@np.errstate(invalid="ignore")
def _add_target_logits(x, target, loss, lse):
    lse[...] = 0
    rows = np.flatnonzero(target >= 0)
    lse[rows] = loss[rows] + x[rows, target[rows]]


@kernel_part
def row_loss(row, target):  # (V,)
    """Return -log softmax(row)[target]."""
    top = row_max(row)
    return row_nll(row_exp_sum(row, top, row.dtype.type(1)), top, row[target])


@jit("(int64, int64, {f}[:, ::1], int64[::1], {f}[::1])")
def _loss(begin, end, x, target, nll):
    for n in range(begin, end):
        nll[n] = row_loss(x[n], target[n]) if target[n] >= 0 else 0


@jit("(int64, int64, {f}[:, ::1], int64[::1], {f}[::1], {f}[::1], {f}[:, ::1])")
def _gradient(begin, end, x, target, scale, nll, dx):
    for n in range(begin, end):
        if target[n] < 0:
            nll[n] = 0
            dx[n, :] = 0
            continue
        row, written = x[n], dx[n]
        top = row_max(row)
        total = row_exp(row, top, row.dtype.type(1), written)
        nll[n] = row_nll(total, top, row[target[n]])
        row_divide(written, total / scale[n])
        written[target[n]] -= scale[n]
