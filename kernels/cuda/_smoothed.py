"""Rows of logits beside their class indices, with all that `label_rows` lacks: smoothing, soft-cap, statistics.

With z, m and below_v = z_m - z_v of ``_below.py``, t the class index, w the class weights, eps the label smoothing of V
classes, `hard` = 1 - eps and `share` = eps / V; the class m stays out of all sums, which have one sign:

    rest = sum exp(-below_v)      lse = z_m + log1p(rest)      mass = hard w_t + share sum_v w_v
    l = hard w_t below_t + share sum w_v below_v + mass log1p(rest)
    nll = below_t + log1p(rest)      entropy = log1p(rest) + sum exp(-below_v) below_v / (1 + rest)
    dz_v = common exp(-below_v) - g q_v,   common = (g mass + h) / (1 + rest),   q_v = share w_v + hard w_t [v = t]
    dz_m = g ((mass - q_m) - mass rest / (1 + rest)) + h / (1 + rest)
    g = scale / temperature      h = 2 lse_scale lse / temperature      dx_v = dz_v (1 - tanh(factor x_v)**2)

A row is read three times, for m, for the sums and for the gradient, the second and the third time from the second-level
cache: 4 V elements, of which 2 V from and to memory. Statistics are always taken: they are one more sum.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._below import (
    ABSENT,
    below1,
    below8,
    dot8,
    entropy8,
    exponential,
    exponentials8,
    gradient8,
    level,
    slope,
    slopes8,
    times8,
)
from fastnlp.kernels.cuda._rows import NEGATIVE_INFINITY, sum8
from fastnlp.kernels.cuda._walk import at8, begin, eight, fill, onward, put8, thread_top
from fastnlp.kernels.cuda.prims import (
    block,
    block_first,
    block_sums,
    blocks,
    given,
    kernel,
    load1,
    log1p,
    scratch_pairs,
    scratch_places,
    tanh,
    thread,
)

_ZERO, _ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)
_NAN = np.float32(np.nan)
_ZEROS, _ONES = (_ZERO,) * 8, (_ONE,) * 8


@kernel(
    "x* i64 i64* f32* f32* f32* i64 i64 i64 f32 f32 f32 f32 f32 f32* f32* f32* f32* i64* x* i64",
    threads=1024,
    registers=64,
    loads=10,
    stores=2,
)
def smoothed_rows(
    x,  # (n, classes), rows of `pitch` elements
    pitch,
    label,  # (n,) -1 where the row does not count, -2 where it is no class
    class_weight,  # (classes,) or None
    scale,  # (n,) with dx
    lse_scale,  # (n,) with dx
    classes,
    whole,  # how many of the classes can be read eight at a time: a multiple of 8, or 0 where rows are not aligned
    n,
    inverse_t,
    factor,  # of x within tanh, or inverse_t
    cap,  # 0: none
    hard,
    share,
    loss,  # (n,)
    lse,  # (n,)
    nll,  # (n,)
    entropy,  # (n,)
    argmax,  # (n,)
    dx,  # (n, classes) or None; it may be x
    dx_pitch,
):
    """Loss, lse and statistics of each row, and dx where it is wanted."""
    pairs, places = scratch_pairs(), scratch_places()
    classes, whole = np.int32(classes), np.int32(whole)
    row = block()
    while row < n:
        t = np.int32(label[row])
        base, to = row * pitch, row * dx_pitch
        if t < 0:
            nothing = _ZERO if t == -1 else _NAN
            if thread() == 0:
                loss[row], lse[row], nll[row], entropy[row], argmax[row] = nothing, nothing, nothing, nothing, -1
            if given(dx):
                fill(dx, to, classes, whole, nothing)
        else:
            top, at = thread_top(x, base, classes, whole)
            top, at = block_first(top, at, pairs, places)
            near, high = level(top, factor)
            xt = load1(x, base + t)  # before the barriers of the sums: dx may be x
            rest, spread, even, others = _ZERO, _ZERO, _ZERO, _ZERO
            i, apart = begin(whole)
            while i < classes:
                a = at8(eight(x, base, i, apart, classes, ABSENT), at, i, apart, ABSENT)
                d = below8(a, top, factor, cap, near, high)
                e = exponentials8(d)
                rest += sum8(e)
                spread += entropy8(e, d)
                if given(class_weight):
                    w = at8(eight(class_weight, 0, i, apart, classes, _ZERO), at, i, apart, _ZERO)
                    even += dot8(w, d)
                    others += sum8(w)
                else:
                    even += dot8(_ONES, d)
                i, apart = onward(i, apart, whole)
            rest, spread = block_sums(rest, spread, pairs)
            even, others = block_sums(even, others, pairs)

            z = cap * tanh(factor * top) if cap > _ZERO else factor * top
            if not abs(z) < -NEGATIVE_INFINITY:
                rest = _NAN
            total, log_total = _ONE + rest, log1p(rest)
            apart_t = below1(xt, top, factor, cap, near, high)
            wt, wm = _ONE, _ONE
            if given(class_weight):
                wt, wm = class_weight[t], class_weight[at]
            else:
                others = np.float32(classes - 1)
            of_label = hard * wt
            mass_others = share * others + (_ZERO if t == at else of_label)
            mass = mass_others + share * wm + (of_label if t == at else _ZERO)
            if thread() == 0:
                value = mass * log_total
                if share > _ZERO:
                    value += share * even
                if of_label > _ZERO:
                    value += of_label * apart_t
                loss[row], lse[row] = value, z + log_total
                nll[row], entropy[row], argmax[row] = apart_t + log_total, log_total + spread / total, at
            if given(dx):
                g, h = scale[row] * inverse_t, _TWO * lse_scale[row] * (z + log_total) * inverse_t
                common, even = (g * mass + h) / total, g * share
                at_top = g * (mass_others - mass * rest / total) + h / total
                at_label = common * exponential(apart_t) - even * wt - g * of_label
                if cap > _ZERO:
                    at_top, at_label = at_top * slope(top, factor), at_label * slope(xt, factor)
                i, apart = begin(whole)
                while i < classes:
                    a = eight(x, base, i, apart, classes, ABSENT)
                    w = eight(class_weight, 0, i, apart, classes, _ZERO) if given(class_weight) else _ONES
                    e = exponentials8(below8(a, top, factor, cap, near, high))
                    dz = gradient8(e, common, w, even)
                    if cap > _ZERO:
                        dz = times8(dz, slopes8(a, factor))
                    dz = at8(at8(dz, t, i, apart, at_label), at, i, apart, at_top)
                    put8(dx, to, i, apart, classes, dz)
                    i, apart = onward(i, apart, whole)
        row += blocks()
