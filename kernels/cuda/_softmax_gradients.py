"""Gradients of softmax, log-softmax and log-sum-exp: rows are read twice, the second time from cache."""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._rows import LOG2E, exps8, sum8, times8, top_and_sum
from fastnlp.kernels.cuda.prims import (
    block,
    block_sum,
    blocks,
    exp2,
    kernel,
    load1,
    load8,
    scratch,
    store1,
    store8,
    thread,
    threads,
)
from fastnlp.kernels.scalar import softmax_gradient

_ZERO = np.float32(0)
THREADS = 1024


@kernel("x* i64 x* i64 x* i64 i64 i64 i64 f32", threads=THREADS, registers=56, loads=4, stores=1)
def softmax_gradient_rows(y, y_pitch, dy, dy_pitch, dx, dx_pitch, classes, whole, n, scale):
    """dx = scale * y (dy - <dy, y>); it may be dy."""
    shared = scratch()
    classes, whole = np.int32(classes), np.int32(whole)
    me, step = np.int32(thread() * 8), np.int32(threads() * 8)
    row = block()
    while row < n:
        base, of, to = row * y_pitch, row * dy_pitch, row * dx_pitch
        dot = _ZERO
        i = me
        while i < whole:
            a, b = load8(y, base + i), load8(dy, of + i)
            dot += ((a[0] * b[0] + a[1] * b[1]) + (a[2] * b[2] + a[3] * b[3])) + (
                (a[4] * b[4] + a[5] * b[5]) + (a[6] * b[6] + a[7] * b[7])
            )
            i = np.int32(i + step)
        i = np.int32(whole + thread())
        while i < classes:
            dot += load1(y, base + i) * load1(dy, of + i)
            i = np.int32(i + threads())
        dot = block_sum(dot, shared)
        i = me
        while i < whole:
            a, b = load8(y, base + i), load8(dy, of + i)
            store8(
                dx,
                to + i,
                (
                    scale * softmax_gradient(a[0], b[0], dot),
                    scale * softmax_gradient(a[1], b[1], dot),
                    scale * softmax_gradient(a[2], b[2], dot),
                    scale * softmax_gradient(a[3], b[3], dot),
                    scale * softmax_gradient(a[4], b[4], dot),
                    scale * softmax_gradient(a[5], b[5], dot),
                    scale * softmax_gradient(a[6], b[6], dot),
                    scale * softmax_gradient(a[7], b[7], dot),
                ),
            )
            i = np.int32(i + step)
        i = np.int32(whole + thread())
        while i < classes:
            store1(dx, to + i, scale * softmax_gradient(load1(y, base + i), load1(dy, of + i), dot))
            i = np.int32(i + threads())
        row += blocks()


@kernel("x* i64 x* i64 x* i64 i64 i64 i64 f32", threads=THREADS, registers=56, loads=3, stores=1)
def log_softmax_gradient_rows(y, y_pitch, dy, dy_pitch, dx, dx_pitch, classes, whole, n, scale):
    """dx = scale * (dy - exp(y) sum(dy)); it may be dy."""
    shared = scratch()
    classes, whole = np.int32(classes), np.int32(whole)
    me, step = np.int32(thread() * 8), np.int32(threads() * 8)
    row = block()
    while row < n:
        base, of, to = row * y_pitch, row * dy_pitch, row * dx_pitch
        total = _ZERO
        i = me
        while i < whole:
            total += sum8(load8(dy, of + i))
            i = np.int32(i + step)
        i = np.int32(whole + thread())
        while i < classes:
            total += load1(dy, of + i)
            i = np.int32(i + threads())
        total = block_sum(total, shared)
        i = me
        while i < whole:
            p, b = exps8(load8(y, base + i), _ZERO, LOG2E), load8(dy, of + i)
            store8(
                dx,
                to + i,
                (
                    scale * (b[0] - p[0] * total),
                    scale * (b[1] - p[1] * total),
                    scale * (b[2] - p[2] * total),
                    scale * (b[3] - p[3] * total),
                    scale * (b[4] - p[4] * total),
                    scale * (b[5] - p[5] * total),
                    scale * (b[6] - p[6] * total),
                    scale * (b[7] - p[7] * total),
                ),
            )
            i = np.int32(i + step)
        i = np.int32(whole + thread())
        while i < classes:
            p = exp2(load1(y, base + i) * LOG2E)
            store1(dx, to + i, scale * (load1(dy, of + i) - p * total))
            i = np.int32(i + threads())
        row += blocks()


@kernel("x* i64 f32* x* i64 i64 i64 i64", threads=THREADS, registers=48, loads=3, stores=1)
def logsumexp_gradient_rows(x, pitch, dlse, dx, dx_pitch, classes, whole, n):
    """dx = dlse softmax(x)."""
    shared = scratch()
    classes, whole = np.int32(classes), np.int32(whole)
    me, step = np.int32(thread() * 8), np.int32(threads() * 8)
    row = block()
    while row < n:
        base, to = row * pitch, row * dx_pitch
        top, total = top_and_sum(x, base, classes, whole, LOG2E, shared)
        factor = dlse[row] / total
        i = me
        while i < whole:
            store8(dx, to + i, times8(exps8(load8(x, base + i), top, LOG2E), factor))
            i = np.int32(i + step)
        i = np.int32(whole + thread())
        while i < classes:
            store1(dx, to + i, exp2((load1(x, base + i) - top) * LOG2E) * factor)
            i = np.int32(i + threads())
        row += blocks()
