"""Rows of logits beside those of a teacher: ``soft KL(q || p) + hard cross-entropy``, and the gradient in place.

With p, q, S and H as in ``_kl.py``, and r_v = log q_v / p_v:

    D = sum_v q_v r_v = sum_v q_v h(r_v) - (S - 1)      l = soft D + hard H
    dx_v = upstream (soft scale q_v (r_v - D) + hard (softmax(x)_v - [v = t]))

Three passes over both rows: maxima and sums, the terms of D, the gradient; one more over x for a hard part.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._divergence import kl, log_ratio, p_of, q_of
from fastnlp.kernels.cuda._divergence_rows import cross_entropy, fill_row, row_pair, store_row1, store_row8
from fastnlp.kernels.cuda.prims import (
    block,
    block_sum,
    blocks,
    given,
    kernel,
    load1,
    load8,
    part,
    scratch,
    thread,
    threads,
)

_ZERO, _NAN = np.float32(0), np.float32(np.nan)


@part
def _term(y, x, two, given_p):
    """Return q h(r) of one element."""
    return kl(q_of(x, two), p_of(y, two, given_p), -log_ratio(y, x, two, given_p))[0]


@part
def _slope(y, x, two, given_p, mean, g):
    """Return g q (r - mean) of one element."""
    q = q_of(x, two)
    return q if q == _ZERO else g * (q * (-log_ratio(y, x, two, given_p) - mean))


@kernel(
    "x* i64 x* i64 i64* f32* i64 i64 i64 f32 f32 f32 i64 f32* x* i64",
    threads=1024,
    registers=64,
    loads=12,
    stores=2,
)
def reverse_kl_rows(
    x,  # (n, classes) logits, rows of `pitch` elements
    pitch,
    y,  # (n, classes) the teacher's logits, or probabilities, rows of `y_pitch` elements
    y_pitch,
    label,  # (n,) class indices; -1 where the row does not count, less where it is no class
    upstream,  # (n,) with dx
    classes,
    whole,  # how many of the classes can be read eight at a time: a multiple of 8, or 0 where rows are not aligned
    n,
    scale,
    soft,
    hard,
    given_p,  # 1 where y are probabilities, else 0
    loss,  # (n,)
    dx,  # (n, classes) or None; it may be x
    dx_pitch,
):
    """Loss of each row, and dx where it is wanted."""
    shared = scratch()
    classes, whole, given_p = np.int32(classes), np.int32(whole), given_p != 0
    row = block()
    while row < n:
        t = np.int32(label[row])
        base, y_base, to = row * pitch, row * y_pitch, row * dx_pitch
        if t < 0:
            nothing = _ZERO if t == -1 else _NAN
            if thread() == 0:
                loss[row] = nothing
            if given(dx):
                fill_row(dx, to, classes, whole, nothing)
        else:
            two, more = row_pair(x, base, y, y_base, classes, whole, scale, given_p, shared)
            h = rate = rest = _ZERO
            if hard != _ZERO:
                h, rate, rest = cross_entropy(x, base, classes, whole, t, two.top_q, shared)
            mean = _ZERO
            i = np.int32(thread() * 8)
            while i < whole:
                a, b = load8(y, y_base + i), load8(x, base + i)
                left = (_term(a[0], b[0], two, given_p) + _term(a[1], b[1], two, given_p)) + (
                    _term(a[2], b[2], two, given_p) + _term(a[3], b[3], two, given_p)
                )
                right = (_term(a[4], b[4], two, given_p) + _term(a[5], b[5], two, given_p)) + (
                    _term(a[6], b[6], two, given_p) + _term(a[7], b[7], two, given_p)
                )
                mean += left + right
                i = np.int32(i + threads() * 8)
            i = np.int32(whole + thread())
            while i < classes:
                mean += _term(load1(y, y_base + i), load1(x, base + i), two, given_p)
                i = np.int32(i + threads())
            mean = block_sum(mean, shared) - more
            if thread() == 0:
                loss[row] = soft * mean + hard * h
            if given(dx):
                g = upstream[row] * soft * scale
                rate, rest = upstream[row] * hard * rate, -upstream[row] * hard * rest
                i = np.int32(thread() * 8)
                while i < whole:
                    a, b = load8(y, y_base + i), load8(x, base + i)
                    d = (
                        _slope(a[0], b[0], two, given_p, mean, g),
                        _slope(a[1], b[1], two, given_p, mean, g),
                        _slope(a[2], b[2], two, given_p, mean, g),
                        _slope(a[3], b[3], two, given_p, mean, g),
                        _slope(a[4], b[4], two, given_p, mean, g),
                        _slope(a[5], b[5], two, given_p, mean, g),
                        _slope(a[6], b[6], two, given_p, mean, g),
                        _slope(a[7], b[7], two, given_p, mean, g),
                    )
                    store_row8(dx, to, i, d, b, t, two.top_q, rate, rest, hard)
                    i = np.int32(i + threads() * 8)
                i = np.int32(whole + thread())
                while i < classes:
                    one = load1(x, base + i)
                    d0 = _slope(load1(y, y_base + i), one, two, given_p, mean, g)
                    store_row1(dx, to, i, d0, one, t, two.top_q, rate, rest, hard)
                    i = np.int32(i + threads())
        row += blocks()
