"""Softmax, log-softmax and log-sum-exp of rows, and their gradients (the equations: ``reference/softmax.py``).

Schedule: one row at a time, so that its second and third pass find it in cache: maximum; exp and sum; scale. An output
larger than the caches is written past them, so that it is not read first: a copy does the same.
Bytes: one read and one write of the row. Flops: about 15 an element, nearly all of them exp.
"""

from __future__ import annotations

import math

import numpy as np

from fastnlp._threads import run
from fastnlp.kernels.cpu._jit import jit
from fastnlp.kernels.cpu._memory import row_stream, stream_fence, streamed
from fastnlp.kernels.cpu._rows import (
    BLOCK,
    row_divide,
    row_exp,
    row_exp_in_place,
    row_logsumexp,
    row_max,
    row_max_and_exp_sum,
    rows_a_task,
)
from fastnlp.kernels.scalar import log_softmax_gradient, softmax_gradient


def softmax(x, out, scale):  # (N, V), (N, V)
    """out = softmax(scale * x); `out` may be `x`."""
    if out is x:
        run(_softmax_in_place, x.shape[0], x, x.dtype.type(scale), grain=rows_a_task(x.shape[1]))
    else:
        kernel = _softmax_streamed if streamed(out) else _softmax
        run(kernel, x.shape[0], x, out, x.dtype.type(scale), grain=rows_a_task(x.shape[1]))


def log_softmax(x, out, scale):  # (N, V), (N, V)
    """out = log softmax(scale * x); `out` may be `x`."""
    kernel = _log_softmax_streamed if out is not x and streamed(out) else _log_softmax
    run(kernel, x.shape[0], x, out, x.dtype.type(scale), grain=rows_a_task(x.shape[1]))


def logsumexp(x, out):  # (N, V), (N,)
    """out = log sum exp(x); +-inf where the maximum is infinite."""
    run(_logsumexp, x.shape[0], x, out, grain=rows_a_task(x.shape[1]))


def softmax_backward(y, dy, dx, scale):  # (N, V) each
    """dx = scale * y (dy - <dy, y>), from y = softmax(scale * x)."""
    run(_softmax_backward, y.shape[0], y, dy, dx, y.dtype.type(scale), grain=rows_a_task(y.shape[1]))


def log_softmax_backward(y, dy, dx, scale):  # (N, V) each
    """dx = scale * (dy - exp(y) sum(dy)), from y = log softmax(scale * x)."""
    run(_log_softmax_backward, y.shape[0], y, dy, dx, y.dtype.type(scale), grain=rows_a_task(y.shape[1]))


def logsumexp_backward(x, dlse, dx):  # (N, V), (N,), (N, V)
    """dx = dlse softmax(x)."""
    run(_logsumexp_backward, x.shape[0], x, dlse, dx, grain=rows_a_task(x.shape[1]))


@jit("(int64, int64, {f}[:, ::1], {f}[:, ::1], {f})")
def _softmax(begin, end, x, out, scale):
    for n in range(begin, end):
        row, written = x[n], out[n]
        row_divide(written, row_exp(row, row_max(row), scale, written))


@jit("(int64, int64, {f}[:, ::1], {f}[:, ::1], {f})")
def _softmax_streamed(begin, end, x, out, scale):
    kept = np.empty(x.shape[1], x.dtype)
    for n in range(begin, end):
        row = x[n]
        total = row_exp(row, row_max(row), scale, kept)
        row_stream(kept, row.dtype.type(1.0 / total), out[n])
    stream_fence()


@jit("(int64, int64, {f}[:, ::1], {f})")
def _softmax_in_place(begin, end, x, scale):
    for n in range(begin, end):
        row = x[n]
        row_divide(row, row_exp_in_place(row, row_max(row), scale))


@jit("(int64, int64, {f}[:, ::1], {f}[:, ::1], {f})")
def _log_softmax(begin, end, x, out, scale):
    for n in range(begin, end):
        row, written = x[n], out[n]
        top, total = row_max_and_exp_sum(row, scale)
        shift = row.dtype.type(math.log(total))
        for v in range(row.size):
            written[v] = scale * (row[v] - top) - shift


@jit("(int64, int64, {f}[:, ::1], {f}[:, ::1], {f})")
def _log_softmax_streamed(begin, end, x, out, scale):
    kept, one = np.empty(BLOCK, x.dtype), x.dtype.type(1)
    for n in range(begin, end):
        row, written = x[n], out[n]
        top, total = row_max_and_exp_sum(row, scale)
        shift = row.dtype.type(math.log(total))
        for first in range(0, row.size, BLOCK):
            block = row[first : first + BLOCK]
            for v in range(block.size):
                kept[v] = scale * (block[v] - top) - shift
            row_stream(kept[: block.size], one, written[first : first + BLOCK])
    stream_fence()


@jit("(int64, int64, {f}[:, ::1], {f}[::1])")
def _logsumexp(begin, end, x, out):
    for n in range(begin, end):
        top, rest = row_logsumexp(x[n])
        out[n] = np.float64(top) + rest


@jit("(int64, int64, {f}[:, ::1], {f}[:, ::1], {f}[:, ::1], {f})")
def _softmax_backward(begin, end, y, dy, dx, scale):
    for n in range(begin, end):
        p, dp, written = y[n], dy[n], dx[n]
        dot = 0.0
        for v in range(p.size):
            dot += np.float64(p[v]) * np.float64(dp[v])
        total = p.dtype.type(dot)
        for v in range(p.size):
            written[v] = scale * softmax_gradient(p[v], dp[v], total)


@jit("(int64, int64, {f}[:, ::1], {f}[:, ::1], {f}[:, ::1], {f})")
def _log_softmax_backward(begin, end, y, dy, dx, scale):
    for n in range(begin, end):
        log_p, dp, written = y[n], dy[n], dx[n]
        total = 0.0
        for v in range(log_p.size):
            total += np.float64(dp[v])
        rounded = log_p.dtype.type(total)
        for v in range(log_p.size):
            written[v] = scale * log_softmax_gradient(log_p[v], dp[v], rounded)


@jit("(int64, int64, {f}[:, ::1], {f}[::1], {f}[:, ::1])")
def _logsumexp_backward(begin, end, x, dlse, dx):
    for n in range(begin, end):
        row, written = x[n], dx[n]
        row_divide(written, row_exp(row, row_max(row), row.dtype.type(1), written) / dlse[n])
