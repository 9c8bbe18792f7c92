"""Softmax, log-softmax and log-sum-exp of rows, and their gradients (the equations: the reference's).

One block takes a row: its maximum and sum in one pass that corrects the sum whenever the maximum grows, then what is
written, from the second-level cache: 2 V elements from and to memory. The gradients read two rows and write one.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._rows import LOG2E, exps8, times8, top_and_sum
from fastnlp.kernels.cuda._schedule import grid, whole
from fastnlp.kernels.cuda._softmax_gradients import (
    THREADS,
    log_softmax_gradient_rows,
    logsumexp_gradient_rows,
    softmax_gradient_rows,
)
from fastnlp.kernels.cuda.prims import (
    block,
    block_sum,
    blocks,
    exp2,
    kernel,
    load1,
    load8,
    log,
    scratch,
    store1,
    store8,
    thread,
    threads,
)

_ONE, _INFINITE = np.float32(1), np.float32(np.inf)


def softmax(x, out, scale):  # (N, V), (N, V)
    """out = softmax(scale * x)."""
    _rows(softmax_rows, x, out, (x, x.pitch, out, out.pitch), scale)


def log_softmax(x, out, scale):  # (N, V), (N, V)
    """out = log softmax(scale * x)."""
    _rows(log_softmax_rows, x, out, (x, x.pitch, out, out.pitch), scale)


def logsumexp(x, out):  # (N, V), (N,)
    """out = log sum exp(x); +-inf where the maximum is infinite."""
    n, classes = x.shape
    x.library.launch(logsumexp_rows, *grid(x.library, n, classes, THREADS), x, x.pitch, classes, whole(x), n, out)


def softmax_backward(y, dy, dx, scale):  # (N, V) each
    """dx = scale * y (dy - <dy, y>), from y = softmax(scale * x)."""
    _rows(softmax_gradient_rows, y, dx, (y, y.pitch, dy, dy.pitch, dx, dx.pitch), scale, dy)


def log_softmax_backward(y, dy, dx, scale):  # (N, V) each
    """dx = scale * (dy - exp(y) sum(dy)), from y = log softmax(scale * x)."""
    _rows(log_softmax_gradient_rows, y, dx, (y, y.pitch, dy, dy.pitch, dx, dx.pitch), scale, dy)


def logsumexp_backward(x, dlse, dx):  # (N, V), (N,), (N, V)
    """dx = dlse softmax(x)."""
    n, classes = x.shape
    at = grid(x.library, n, classes, THREADS)
    x.library.launch(logsumexp_gradient_rows, *at, x, x.pitch, dlse, dx, dx.pitch, classes, whole(x, dx), n)


def _rows(kernel, x, out, arrays, scale, *others):
    n, classes = x.shape
    at = grid(x.library, n, classes, THREADS)
    x.library.launch(kernel, *at, *arrays, classes, whole(x, out, *others), n, scale)


@kernel("x* i64 x* i64 i64 i64 i64 f32", threads=THREADS, registers=48, loads=3, stores=1)
def softmax_rows(x, pitch, out, out_pitch, classes, whole, n, scale):
    """out = softmax(scale * x); it may be x."""
    shared = scratch()
    classes, whole = np.int32(classes), np.int32(whole)
    me, step = np.int32(thread() * 8), np.int32(threads() * 8)
    k = scale * LOG2E
    row = block()
    while row < n:
        base, to = row * pitch, row * out_pitch
        top, total = top_and_sum(x, base, classes, whole, k, shared)
        factor = _ONE / total
        i = me
        while i < whole:
            store8(out, to + i, times8(exps8(load8(x, base + i), top, k), factor))
            i = np.int32(i + step)
        i = np.int32(whole + thread())
        while i < classes:
            store1(out, to + i, exp2((load1(x, base + i) - top) * k) * factor)
            i = np.int32(i + threads())
        row += blocks()


@kernel("x* i64 x* i64 i64 i64 i64 f32", threads=THREADS, registers=48, loads=3, stores=1)
def log_softmax_rows(x, pitch, out, out_pitch, classes, whole, n, scale):
    """out = log softmax(scale * x); it may be x."""
    shared = scratch()
    classes, whole = np.int32(classes), np.int32(whole)
    me, step = np.int32(thread() * 8), np.int32(threads() * 8)
    row = block()
    while row < n:
        base, to = row * pitch, row * out_pitch
        top, total = top_and_sum(x, base, classes, whole, scale * LOG2E, shared)
        less = log(total)
        i = me
        while i < whole:
            a = load8(x, base + i)
            store8(
                out,
                to + i,
                (
                    (a[0] - top) * scale - less,
                    (a[1] - top) * scale - less,
                    (a[2] - top) * scale - less,
                    (a[3] - top) * scale - less,
                    (a[4] - top) * scale - less,
                    (a[5] - top) * scale - less,
                    (a[6] - top) * scale - less,
                    (a[7] - top) * scale - less,
                ),
            )
            i = np.int32(i + step)
        i = np.int32(whole + thread())
        while i < classes:
            store1(out, to + i, (load1(x, base + i) - top) * scale - less)
            i = np.int32(i + threads())
        row += blocks()


@kernel("x* i64 i64 i64 i64 f32*", threads=THREADS, registers=48, loads=2)
def logsumexp_rows(x, pitch, classes, whole, n, out):
    """out = log sum exp(x)."""
    shared = scratch()
    classes, whole = np.int32(classes), np.int32(whole)
    row = block()
    while row < n:
        base = row * pitch
        top, total = top_and_sum(x, base, classes, whole, LOG2E, shared)
        if top == _INFINITE:  # inf, unless there is a NaN beside it
            total = _ONE
            i = thread()
            while i < classes:
                v = load1(x, base + i)
                if v != v:
                    total = v
                i = np.int32(i + threads())
            total = block_sum(total, shared)
            if thread() == 0:
                out[row] = top if total == total else total
        elif thread() == 0:
            out[row] = top + log(total)
        row += blocks()
