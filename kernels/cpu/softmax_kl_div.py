"""Divergence of two softmaxes from their logits, and its gradients (the equations: ``reference/_divergence.py``).

Schedule: one row of both at a time, so that the later passes find it in cache: maximum and sum of exponentials of each,
the sum of the divergence, and for each gradient a pass that computes its probabilities again. Nothing of size (N, V) is
kept. Bytes: one read of both logits, and one write of each gradient.
"""

from __future__ import annotations

import numpy as np

from fastnlp._threads import run
from fastnlp.kernels.cpu._divergence import pair, swapped
from fastnlp.kernels.cpu._divergence_rows import js_slope_of_q, js_sums, kl_slope_of_p, kl_slope_of_q, kl_sum
from fastnlp.kernels.cpu._jit import jit, kernel_part
from fastnlp.kernels.cpu._rows import row_max_and_exp_sum, rows_a_task


def forward(x, target, beta, scale, loss):  # (N, V), (N, V), (N,)
    """loss = D."""
    kind, grain = x.dtype.type, rows_a_task(x.shape[1])
    if 0 < beta < 1:
        run(_js, x.shape[0], target, x, beta, kind(scale), loss, grain=grain)
    else:
        run(_kl, x.shape[0], *((target, x) if beta == 0 else (x, target)), kind(scale), loss, grain=grain)


def gradient(x, target, beta, scale, upstream, loss, dx, dtarget):
    # (N, V), (N, V), (N,), (N,), (N, V) or None, (N, V) or None
    """loss = D, and dx = upstream dD/dx, dtarget = upstream dD/dtarget; those that are None are left out."""
    kind, grain = x.dtype.type, rows_a_task(x.shape[1])
    nothing = np.empty((0, x.shape[1]), x.dtype)
    dx, dtarget = nothing if dx is None else dx, nothing if dtarget is None else dtarget
    if 0 < beta < 1:
        run(_js_gradient, x.shape[0], target, x, beta, kind(scale), upstream, loss, dtarget, dx, grain=grain)
    else:
        arrays = (target, x, kind(scale), upstream, loss, dtarget, dx)
        if beta == 1:  # p and q change places
            arrays = (x, target, kind(scale), upstream, loss, dx, dtarget)
        run(_kl_gradient, x.shape[0], *arrays, grain=grain)


@kernel_part
def _pair(y, x, scale):  # (V,), (V,)
    top_p, total_p = row_max_and_exp_sum(y, scale)
    top_q, total_q = row_max_and_exp_sum(x, scale)
    return pair(scale, top_p, total_p, top_q, total_q)


@jit("(int64, int64, {f}[:, ::1], {f}[:, ::1], {f}, {f}[::1])")
def _kl(begin, end, y, x, scale, loss):
    for n in range(begin, end):
        loss[n] = kl_sum(y[n], x[n], _pair(y[n], x[n], scale))


@jit("(int64, int64, {f}[:, ::1], {f}[:, ::1], float64, {f}, {f}[::1])")
def _js(begin, end, y, x, beta, scale, loss):
    for n in range(begin, end):
        of_p, of_q = js_sums(y[n], x[n], _pair(y[n], x[n], scale), beta)
        loss[n] = beta * of_p + (1 - beta) * of_q


@jit("(int64, int64, {f}[:, ::1], {f}[:, ::1], {f}, {f}[::1], {f}[::1], {f}[:, ::1], {f}[:, ::1])")
def _kl_gradient(begin, end, y, x, scale, upstream, loss, dy, dx):
    for n in range(begin, end):
        two = _pair(y[n], x[n], scale)
        total = kl_sum(y[n], x[n], two)
        loss[n] = total
        factor = scale * upstream[n]
        if dx.shape[0]:
            kl_slope_of_q(y[n], x[n], two, y.dtype.type(1), factor, dx[n])
        if dy.shape[0]:
            kl_slope_of_p(y[n], x[n], two, y.dtype.type(total), factor, dy[n])


@jit("(int64, int64, {f}[:, ::1], {f}[:, ::1], float64, {f}, {f}[::1], {f}[::1], {f}[:, ::1], {f}[:, ::1])")
def _js_gradient(begin, end, y, x, beta, scale, upstream, loss, dy, dx):
    kind = y.dtype.type
    b, c = kind(beta), kind(1 - beta)
    for n in range(begin, end):
        two = _pair(y[n], x[n], scale)
        of_p, of_q = js_sums(y[n], x[n], two, beta)
        loss[n] = beta * of_p + (1 - beta) * of_q
        factor = scale * upstream[n]
        if dx.shape[0]:
            js_slope_of_q(y[n], x[n], two, b, c, kind(of_q), c * factor, dx[n])
        if dy.shape[0]:
            js_slope_of_q(x[n], y[n], swapped(two), c, b, kind(of_p), b * factor, dy[n])
