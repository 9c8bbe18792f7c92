"""Pooling of the vectors of a sequence to one, and its gradients (the equations: ``reference/pool.py``).

Schedule: in parallel over sequences, row after row of a sequence into one row of sums or maxima, which stays in cache.
Bytes: one read of the rows that count; for the gradient one write of all rows.
"""

from __future__ import annotations

import numpy as np

from fastnlp._threads import run
from fastnlp.kernels.cpu._jit import jit
from fastnlp.kernels.cpu._rows import rows_a_task


def mean(x, begin, end, out):  # (R, D), (N + 1,), (N,), (N, D)
    """out = the mean of each sequence, summed in float64."""
    run(_mean, end.size, x, begin, end, out, grain=_sequences_a_task(x, end))


def mean_backward(dout, begin, end, dx):  # (N, D), (N + 1,), (N,), (R, D)
    """dx = the gradient of `mean`."""
    run(_mean_backward, end.size, dout, begin, end, dx, grain=_sequences_a_task(dx, end))


def max(x, begin, end, out, place):  # (R, D), (N + 1,), (N,), (N, D), (N, D)
    """out = the maximum of each sequence, NaN where it holds one; place = where it stands first, from begin[n]."""
    run(_max, end.size, x, begin, end, out, place, grain=_sequences_a_task(x, end))


def max_backward(dout, begin, end, place, dx):  # (N, D), (N + 1,), (N,), (N, D), (R, D)
    """dx = the gradient of `max`."""
    run(_max_backward, end.size, dout, begin, end, place, dx, grain=_sequences_a_task(dx, end))


def _sequences_a_task(x, end):
    return rows_a_task(x.size // end.size) if end.size else 1


@jit("(int64, int64, {f}[:, ::1], int64[::1], int64[::1], {f}[:, ::1])")
def _mean(first, last, x, begin, end, out):
    total = np.empty(x.shape[1])
    for n in range(first, last):
        for v in range(total.size):
            total[v] = 0
        for t in range(begin[n], end[n]):
            row = x[t]
            for v in range(total.size):
                total[v] += np.float64(row[v])
        written, length = out[n], np.float64(end[n] - begin[n])
        for v in range(total.size):
            written[v] = total[v] / length


@jit("(int64, int64, {f}[:, ::1], int64[::1], int64[::1], {f}[:, ::1])")
def _mean_backward(first, last, dout, begin, end, dx):
    share = np.empty(dx.shape[1], dx.dtype)
    for n in range(first, last):
        given, length = dout[n], np.float64(end[n] - begin[n])
        for v in range(share.size):
            share[v] = given[v] / length
        for t in range(begin[n], end[n]):
            written = dx[t]
            for v in range(share.size):
                written[v] = share[v]
        for t in range(end[n], begin[n + 1]):
            written = dx[t]
            for v in range(share.size):
                written[v] = 0


@jit("(int64, int64, {f}[:, ::1], int64[::1], int64[::1], {f}[:, ::1], int32[:, ::1])")
def _max(first, last, x, begin, end, out, place):
    for n in range(first, last):
        top, at, row = out[n], place[n], x[begin[n]]
        for v in range(top.size):
            top[v] = row[v]
            at[v] = 0
        for t in range(begin[n] + 1, end[n]):
            row, here = x[t], np.int32(t - begin[n])
            for v in range(top.size):
                new, old = row[v], top[v]
                higher = (new > old) | ((new != new) & (old == old))  # no branch: it vectorises
                top[v] = new if higher else old
                at[v] = here if higher else at[v]


@jit("(int64, int64, {f}[:, ::1], int64[::1], int64[::1], int32[:, ::1], {f}[:, ::1])")
def _max_backward(first, last, dout, begin, end, place, dx):
    zero = dx.dtype.type(0)
    for n in range(first, last):
        given, at = dout[n], place[n]
        for t in range(begin[n], begin[n + 1]):
            written, here = dx[t], np.int32(t - begin[n])
            for v in range(given.size):
                written[v] = given[v] if at[v] == here else zero
