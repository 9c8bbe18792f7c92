"""Cross-entropy of logits against class indices, and its gradient (the equations: ``reference/cross_entropy.py``).

Schedule: one row at a time, so that its later passes find it in cache. Loss: maximum, sum of exponentials. Gradient:
maximum, exponentials written with their sum, scale. exp is evaluated once an element, nothing of size (N, V) is kept.
Bytes: one read of the logits, and for the gradient one write.
"""

from __future__ import annotations

from fastnlp._threads import run
from fastnlp.kernels.cpu._jit import jit, kernel_part
from fastnlp.kernels.cpu._rows import row_divide, row_exp, row_exp_sum, row_max, row_nll, rows_a_task


def forward(x, target, nll):  # (N, V), (N,), (N,)
    """nll = -log softmax(x)[target]."""
    run(_loss, x.shape[0], x, target, nll, grain=rows_a_task(x.shape[1]))


def gradient(x, target, scale, nll, dx):  # (N, V), (N,), (N,), (N,), (N, V)
    """Nll as in forward, and dx = scale d nll / dx, in one pass."""
    run(_gradient, x.shape[0], x, target, scale, nll, dx, grain=rows_a_task(x.shape[1]))


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
