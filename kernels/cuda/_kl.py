"""Rows of logits beside those of a teacher: ``soft KL(p || q) + hard cross-entropy``, and the gradient in place.

    p = softmax(scale y), or y as it is given, of sum S      q = softmax(scale x)
    D = sum_v p_v h(log p_v / q_v) + S - 1,      h(r) = e**-r - 1 + r >= 0
    H = lse x - x_t, t the class index of the row
    l = soft D + hard H
    dx_v = upstream (soft scale (S q_v - p_v) + hard (softmax(x)_v - [v = t]))

Two passes over both rows: maxima and sums; then the terms of D and, since it does not want D, the gradient. A third,
over x alone, where there is a hard part. From the second on rows are read from the second-level cache, where they fit.
q_v - p_v = p_v (h(r) - r) where r is small, so the gradient keeps its digits, too.
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
def _term(y, x, two, more, given_p):
    """Return p h(r), and S q - p, of one element; more = S - 1."""
    q = q_of(x, two)
    term, apart = kl(p_of(y, two, given_p), q, log_ratio(y, x, two, given_p))
    return term, apart + more * q


@kernel(
    "x* i64 x* i64 i64* f32* i64 i64 i64 f32 f32 f32 i64 f32* x* i64",
    threads=1024,
    registers=64,
    loads=10,
    stores=2,
)
def kl_rows(
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
            h = rate = rest = g = _ZERO
            if hard != _ZERO:
                h, rate, rest = cross_entropy(x, base, classes, whole, t, two.top_q, shared)
            if given(dx):
                g = upstream[row] * soft * scale
                rate, rest = upstream[row] * hard * rate, -upstream[row] * hard * rest
            divergence = _ZERO
            i = np.int32(thread() * 8)
            while i < whole:
                a, b = load8(y, y_base + i), load8(x, base + i)
                l0, d0 = _term(a[0], b[0], two, more, given_p)
                l1, d1 = _term(a[1], b[1], two, more, given_p)
                l2, d2 = _term(a[2], b[2], two, more, given_p)
                l3, d3 = _term(a[3], b[3], two, more, given_p)
                l4, d4 = _term(a[4], b[4], two, more, given_p)
                l5, d5 = _term(a[5], b[5], two, more, given_p)
                l6, d6 = _term(a[6], b[6], two, more, given_p)
                l7, d7 = _term(a[7], b[7], two, more, given_p)
                divergence += ((l0 + l1) + (l2 + l3)) + ((l4 + l5) + (l6 + l7))
                if given(dx):
                    d = (g * d0, g * d1, g * d2, g * d3, g * d4, g * d5, g * d6, g * d7)
                    store_row8(dx, to, i, d, b, t, two.top_q, rate, rest, hard)
                i = np.int32(i + threads() * 8)
            i = np.int32(whole + thread())
            while i < classes:
                one = load1(x, base + i)
                l0, d0 = _term(load1(y, y_base + i), one, two, more, given_p)
                divergence += l0
                if given(dx):
                    store_row1(dx, to, i, g * d0, one, t, two.top_q, rate, rest, hard)
                i = np.int32(i + threads())
            divergence = block_sum(divergence, shared) + more
            if thread() == 0:
                loss[row] = soft * divergence + hard * h
        row += blocks()
