"""Cross-entropy of logits, and its gradient (the equations: ``_criterion.py``, ``reference/cross_entropy.py``).

Schedule, class indices alone: one row at a time and a block of it at a time, while the next one is on its way: maximum,
exponentials and their sum; a new maximum rescales the sum so far. The gradient keeps the exponentials and scales them
once the sum is known. exp is evaluated once an element, nothing of size (N, V) is kept.
With options: maximum of the row; then, block by block, the differences to it, their exponentials and the sums wanted;
then the gradient from the exponentials. tanh is evaluated once an element, and its slope from another exponential.
Bytes: one read of the logits (and of distributions), and for the gradient one write.
"""

from __future__ import annotations

import math

import numpy as np

from fastnlp._threads import run
from fastnlp.kernels.cpu._criterion import (
    add_others,
    first_nan,
    gap,
    logit,
    row_gradient,
    row_slope,
    row_top,
    slope,
)
from fastnlp.kernels.cpu._jit import jit
from fastnlp.kernels.cpu._memory import row_stream, stream_fence, streamed
from fastnlp.kernels.cpu._nll import nll_and_lse, row_rest, row_rest_and_exp
from fastnlp.kernels.cpu._rows import BLOCK, rows_a_task


def forward(x, criterion, loss, lse, stats):  # (N, V), Criterion, (N,), (N,), Stats or None
    """Loss and lse of each row, and stats where they are wanted."""
    n, classes = x.shape
    if stats is None and _plain(criterion):
        run(_loss, n, x, criterion.target, loss, lse, grain=rows_a_task(classes))
        return
    nothing = np.empty(0, x.dtype)
    _with_options(x, criterion, nothing, nothing, loss, lse, stats, np.empty((0, classes), x.dtype))


def gradient(x, criterion, scale, lse_scale, loss, lse, stats, dx):
    # (N, V), Criterion, (N,), (N,) or None, (N,), (N,), Stats or None, (N, V)
    """As forward, and dx = the gradient of sum_n scale_n loss_n + lse_scale_n lse_n^2, in one pass."""
    n, classes = x.shape
    if stats is None and lse_scale is None and _plain(criterion):
        past_caches = streamed(dx)
        run(_gradient, n, x, criterion.target, scale, loss, lse, dx, past_caches, grain=rows_a_task(classes))
        return
    _with_options(x, criterion, scale, np.zeros_like(scale) if lse_scale is None else lse_scale, loss, lse, stats, dx)


def _plain(criterion):
    return criterion[1] is None and criterion[2] is None and criterion[3:] == (0.0, 1.0, None)


def _with_options(x, criterion, scale, lse_scale, loss, lse, stats, dx):
    classes = x.shape[1]
    target, probabilities, weight, smoothing, temperature, softcap = criterion
    target = np.empty(0, np.int64) if target is None else target
    probabilities = np.empty((0, classes), x.dtype) if probabilities is None else probabilities
    weight = np.ones(classes, x.dtype) if weight is None else weight
    mean_weight = np.sum(weight, dtype=np.float64) / max(1, classes)
    told = (np.empty(0, x.dtype), np.empty(0, x.dtype), np.empty(0, np.int64)) if stats is None else stats
    settings = np.array([smoothing, smoothing * mean_weight, temperature, softcap or 0.0])
    args = (x, target, probabilities, weight, settings, scale, lse_scale, loss, lse, *told, dx)
    run(_any, x.shape[0], *args, grain=rows_a_task(classes))


@jit("(int64, int64, {f}[:, ::1], int64[::1], {f}[::1], {f}[::1])")
def _loss(begin, end, x, target, loss, lse):
    for n in range(begin, end):
        if target[n] < 0:
            loss[n] = lse[n] = 0
            continue
        row = x[n]
        top, rest = row_rest(row, target[n])
        loss[n], lse[n], _ = nll_and_lse(top, row[target[n]], rest)


@jit("(int64, int64, {f}[:, ::1], int64[::1], {f}[::1], {f}[::1], {f}[::1], {f}[:, ::1], boolean)")
def _gradient(begin, end, x, target, scale, loss, lse, dx, past_caches):
    tops = np.empty(x.shape[1] // BLOCK + 2, x.dtype)
    kept = np.empty(x.shape[1] if past_caches else 0, x.dtype)
    for n in range(begin, end):
        if target[n] < 0:
            loss[n] = lse[n] = 0
            dx[n, :] = 0
            continue
        row, written = x[n], dx[n]
        e = kept if past_caches else written
        top, rest = row_rest_and_exp(row, target[n], e, tops)
        loss[n], lse[n], total = nll_and_lse(top, row[target[n]], rest)
        factor = row.dtype.type(scale[n] / total)
        if past_caches:
            row_stream(e, factor, written)
        else:
            for v in range(written.size):
                written[v] *= factor
    if past_caches:
        stream_fence()


@jit(
    "(int64, int64, {f}[:, ::1], int64[::1], {f}[:, ::1], {f}[::1], float64[::1], {f}[::1], {f}[::1], {f}[::1],"
    "{f}[::1], {f}[::1], {f}[::1], int64[::1], {f}[:, ::1])"
)
def _any(begin, end, x, target, distributions, weight, settings, scale, lse_scale, loss, lse, nll, entropy, argmax, dx):
    smoothing, even_mass, temperature, cap = settings[0], settings[1], settings[2], settings[3]
    hard, even = 1 - smoothing, smoothing / x.shape[1]
    factor = x.dtype.type(min(1 / (temperature * cap if cap else temperature), np.finfo(x.dtype).max))
    narrow_cap, nowhere = x.dtype.type(cap), np.empty(0, x.dtype)
    space, sums = np.empty((2, BLOCK), x.dtype), np.empty(7)
    for n in range(begin, end):
        t = target[n] if target.size else 0
        if t < 0 or x.shape[1] == 0:
            loss[n] = lse[n] = 0
            if nll.size:
                nll[n], entropy[n], argmax[n] = 0, 0, -1
            if dx.size:
                dx[n, :] = 0
            continue
        row = x[n]
        p = distributions[n] if distributions.size else nowhere
        e = dx[n] if dx.size else nowhere
        top, m = row_top(row)
        sums[:] = 0
        for i, j in ((0, m), (m + 1, row.size)):
            add_others(row[i:j], top, factor, narrow_cap, p[i:j], weight[i:j], even, e[i:j], space, sums)
        z_top = logit(top, temperature, cap)
        rest = sums[0] if math.isfinite(z_top) else np.nan
        log_total = math.log1p(rest)
        lse_n = z_top + log_total
        lse[n] = lse_n

        of_top = even * weight[m]
        if p.size:
            of_top += hard * weight[m] * p[m]
            mass_of_others = hard * sums[5] + (even_mass - even * weight[m])
            value, told = hard * sums[6], sums[4] + (sums[3] + p[m]) * log_total
        else:
            of_target = hard * weight[t]
            below = gap(top, row[t], temperature, cap)
            of_top += of_target if t == m else 0.0
            mass_of_others = (0.0 if t == m else of_target) + (even_mass - even * weight[m])
            value, told = of_target * below if of_target else 0.0, below + log_total
        mass = of_top + mass_of_others
        loss[n] = value + even * sums[2] + mass * log_total
        if nll.size:
            nll[n], entropy[n] = told, log_total + sums[1] / (1 + rest)
            argmax[n] = m if rest == rest else first_nan(row, m)
        if dx.size:
            s, squared = np.float64(scale[n]), 2 * lse_scale[n] * lse_n / (1 + rest)
            common = s * mass / (1 + rest) + squared
            row_gradient(e, common / temperature, p, weight, s * hard / temperature, s * even / temperature)
            if cap:
                row_slope(row, factor, e)
            if not p.size and t != m:
                e[t] -= s * of_target * slope(row[t], factor, cap) / temperature
            dtop = s * (mass_of_others - mass * rest / (1 + rest)) + squared
            e[m] = dtop * slope(top, factor, cap) / temperature
