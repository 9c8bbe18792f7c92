"""Rows of logits beside their class indices: loss, log-sum-exp and the gradient in place.

With m the largest logit of a row, k = log2(e) / temperature and t its class index, w the class weight of t:

    rest = sum_{v != t} 2**(k (x_v - m))     e = 2**(k (x_t - m))     total = rest + e
    lse = m / temperature + log total
    l = w log1p(rest / e), or w ((m - x_t) / temperature + log total) where e is small
    dx_v = (g + h) 2**(k (x_v - m)) / total     dx_t = h e / total - g rest / total
    g = scale w / temperature     h = 2 lse_scale lse / temperature

The class itself stays out of the sum, so a confident prediction (rest near 0) keeps its digits in loss and gradient.

A row is read twice, the second time from the second-level cache, and written once: 3 V elements, of which 2 V from and
to memory.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._rows import LOG2E, LOWEST, NEGATIVE_INFINITY, exps8, sum8, times8, top8, with8
from fastnlp.kernels.cuda.prims import (
    block,
    block_max,
    block_sum,
    blocks,
    exp2,
    given,
    kernel,
    load1,
    load8,
    log,
    log1p,
    scratch,
    store1,
    store8,
    thread,
    threads,
)

_ZERO, _ONE, _TWO, _QUARTER = np.float32(0), np.float32(1), np.float32(2), np.float32(0.25)
_NAN = np.float32(np.nan)


@kernel(
    "x* i64 i64* f32* f32* f32* i64 i64 i64 f32 f32* f32* x* i64",
    threads=1024,
    registers=48,
    loads=4,
    stores=1,
)
def label_rows(
    x,  # (n, classes), rows of `pitch` elements
    pitch,
    label,  # (n,) -1 where the row does not count, -2 where it is no class: NaN comes out
    class_weight,  # (classes,) or None
    scale,  # (n,) with dx
    lse_scale,  # (n,) or None
    classes,
    whole,  # how many of the classes can be read eight at a time: a multiple of 8, or 0 where rows are not aligned
    n,
    inverse_t,
    loss,  # (n,)
    lse,  # (n,)
    dx,  # (n, classes) or None; it may be x
    dx_pitch,
):
    """Loss and lse of each row, and dx where it is wanted."""
    shared = scratch()
    me, step = np.int32(thread() * 8), np.int32(threads() * 8)
    classes, whole = np.int32(classes), np.int32(whole)
    rest_of_row = np.int32(whole + thread())
    k = inverse_t * LOG2E
    row = block()
    while row < n:
        t = np.int32(label[row])
        base = row * pitch
        if t < 0:
            nothing = _ZERO if t == -1 else _NAN
            if thread() == 0:
                loss[row] = nothing
                lse[row] = nothing
            if given(dx):
                to = row * dx_pitch
                i = me
                while i < whole:
                    store8(dx, to + i, (nothing, nothing, nothing, nothing, nothing, nothing, nothing, nothing))
                    i = np.int32(i + step)
                i = rest_of_row
                while i < classes:
                    store1(dx, to + i, nothing)
                    i = np.int32(i + threads())
        else:
            m, rest = LOWEST, _ZERO
            i = me
            while i + step < whole:  # two loads are under way at a time
                a = load8(x, base + i)
                b = load8(x, base + i + step)
                larger = top8(top8(m, a), b)
                if np.uint32(t - i) < 8:
                    a = with8(a, t - i, NEGATIVE_INFINITY)
                if np.uint32(t - i - step) < 8:
                    b = with8(b, t - i - step, NEGATIVE_INFINITY)
                rest = rest * exp2((m - larger) * k) + (sum8(exps8(a, larger, k)) + sum8(exps8(b, larger, k)))
                m = larger
                i = np.int32(i + 2 * step)
            if i < whole:
                a = load8(x, base + i)
                larger = top8(m, a)
                if np.uint32(t - i) < 8:
                    a = with8(a, t - i, NEGATIVE_INFINITY)
                rest = rest * exp2((m - larger) * k) + sum8(exps8(a, larger, k))
                m = larger
            i = rest_of_row
            while i < classes:
                one = load1(x, base + i)
                larger = max(m, one)
                rest *= exp2((m - larger) * k)
                if i != t:
                    rest += exp2((one - larger) * k)
                m = larger
                i = np.int32(i + threads())
            top = block_max(m, shared)
            xt = load1(x, base + t)  # before the barriers of the sum: dx may be x
            rest = block_sum(rest * exp2((m - top) * k), shared)
            e = exp2((xt - top) * k)
            total = rest + e if rest + e > _ZERO else _NAN  # a row of nothing but -inf
            w = class_weight[t] if given(class_weight) else _ONE
            log_sum = top * inverse_t + log(total)
            if thread() == 0:
                lse[row] = log_sum
                if e > _QUARTER:
                    loss[row] = w * log1p(rest / e)
                else:
                    loss[row] = w * (((top - xt) * inverse_t if w > _ZERO else _ZERO) + log(total))
            if given(dx):
                g = scale[row] * w * inverse_t
                h = _TWO * lse_scale[row] * log_sum * inverse_t if given(lse_scale) else _ZERO
                at_label = (h * e - g * rest) / total
                g = (g + h) / total
                to = row * dx_pitch
                i = me
                while i < whole:
                    a = times8(exps8(load8(x, base + i), top, k), g)
                    if np.uint32(t - i) < 8:
                        a = with8(a, t - i, at_label)
                    store8(dx, to + i, a)
                    i = np.int32(i + step)
                i = rest_of_row
                while i < classes:
                    store1(dx, to + i, at_label if i == t else g * exp2((load1(x, base + i) - top) * k))
                    i = np.int32(i + threads())
        row += blocks()
