"""Rows of logits beside those of a teacher: soft times generalised Jensen-Shannon divergence, hard cross-entropy.

With p, q, S and H as in ``_kl.py``, m = beta p + gamma q, gamma = 1 - beta, and r_v = log q_v / m_v:

    of_p = sum_v p_v h(log p_v / m_v)      of_q = sum_v q_v h(r_v)      l = soft (beta of_p + gamma of_q) + hard H
    dx_v = upstream (soft scale gamma q_v (r_v - mean) + hard (softmax(x)_v - [v = t]))
    mean = sum_v q_v r_v = of_q - beta (S - 1)

Three passes over both rows: maxima and sums, the terms, the gradient; one more over x for a hard part.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._divergence import mixture
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
def _slope(y, x, two, beta, gamma, given_p, mean, g):
    """Return g q (r - mean) of one element."""
    _, _, q, r = mixture(y, x, two, beta, gamma, given_p)
    return g * (q * (r - mean))


@kernel(
    "x* i64 x* i64 i64* f32* i64 i64 i64 f32 f32 f32 f32 f32 i64 f32* x* i64",
    threads=1024,
    registers=64,
    loads=12,
    stores=2,
)
def js_rows(
    x,  # (n, classes) logits, rows of `pitch` elements
    pitch,
    y,  # (n, classes) the teacher's logits, or probabilities, rows of `y_pitch` elements
    y_pitch,
    label,  # (n,) class indices; -1 where the row does not count, less where it is no class
    upstream,  # (n,) with dx
    classes,
    whole,  # how many of the classes can be read eight at a time: a multiple of 8, or 0 where rows are not aligned
    n,
    beta,
    gamma,
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
            of_p, of_q = _ZERO, _ZERO
            i = np.int32(thread() * 8)
            while i < whole:
                a, b = load8(y, y_base + i), load8(x, base + i)
                p0, q0, _, _ = mixture(a[0], b[0], two, beta, gamma, given_p)
                p1, q1, _, _ = mixture(a[1], b[1], two, beta, gamma, given_p)
                p2, q2, _, _ = mixture(a[2], b[2], two, beta, gamma, given_p)
                p3, q3, _, _ = mixture(a[3], b[3], two, beta, gamma, given_p)
                p4, q4, _, _ = mixture(a[4], b[4], two, beta, gamma, given_p)
                p5, q5, _, _ = mixture(a[5], b[5], two, beta, gamma, given_p)
                p6, q6, _, _ = mixture(a[6], b[6], two, beta, gamma, given_p)
                p7, q7, _, _ = mixture(a[7], b[7], two, beta, gamma, given_p)
                of_p += ((p0 + p1) + (p2 + p3)) + ((p4 + p5) + (p6 + p7))
                of_q += ((q0 + q1) + (q2 + q3)) + ((q4 + q5) + (q6 + q7))
                i = np.int32(i + threads() * 8)
            i = np.int32(whole + thread())
            while i < classes:
                p0, q0, _, _ = mixture(load1(y, y_base + i), load1(x, base + i), two, beta, gamma, given_p)
                of_p += p0
                of_q += q0
                i = np.int32(i + threads())
            of_p, of_q = block_sum(of_p, shared), block_sum(of_q, shared)
            if thread() == 0:
                loss[row] = soft * (beta * of_p + gamma * of_q) + hard * h
            if given(dx):
                mean = of_q - beta * more
                g = upstream[row] * soft * scale * gamma
                rate, rest = upstream[row] * hard * rate, -upstream[row] * hard * rest
                i = np.int32(thread() * 8)
                while i < whole:
                    a, b = load8(y, y_base + i), load8(x, base + i)
                    d = (
                        _slope(a[0], b[0], two, beta, gamma, given_p, mean, g),
                        _slope(a[1], b[1], two, beta, gamma, given_p, mean, g),
                        _slope(a[2], b[2], two, beta, gamma, given_p, mean, g),
                        _slope(a[3], b[3], two, beta, gamma, given_p, mean, g),
                        _slope(a[4], b[4], two, beta, gamma, given_p, mean, g),
                        _slope(a[5], b[5], two, beta, gamma, given_p, mean, g),
                        _slope(a[6], b[6], two, beta, gamma, given_p, mean, g),
                        _slope(a[7], b[7], two, beta, gamma, given_p, mean, g),
                    )
                    store_row8(dx, to, i, d, b, t, two.top_q, rate, rest, hard)
                    i = np.int32(i + threads() * 8)
                i = np.int32(whole + thread())
                while i < classes:
                    one = load1(x, base + i)
                    d0 = _slope(load1(y, y_base + i), one, two, beta, gamma, given_p, mean, g)
                    store_row1(dx, to, i, d0, one, t, two.top_q, rate, rest, hard)
                    i = np.int32(i + threads())
        row += blocks()
