"""Rows of logits beside distributions over the classes: loss, statistics and gradient, with all options.

As ``_smoothed.py``, for a target's mass ``q_v = w_v (hard P_v + share)``, m kept out of the sums:

    l = sum q_v below_v + mass log1p(rest)      nll = sum P_v below_v + log1p(rest) sum P_v      mass = sum q_v
    dz_v = common exp(-below_v) - g q_v         dz_m = g ((mass - q_m) - mass rest / (1 + rest)) + h / (1 + rest)

A class without mass adds nothing, whatever its logit. Logits are read three times and distributions twice, all but
the first time from the second-level cache, as far as both fit there: 6 V elements, of which 3 V from and to memory.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._below import (
    ABSENT,
    below8,
    dot8,
    entropy8,
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
    part,
    scratch_pairs,
    scratch_places,
    tanh,
    thread,
)

_ZERO, _ONE, _TWO, _NAN = np.float32(0), np.float32(1), np.float32(2), np.float32(np.nan)


@part
def _mass8(p, class_weight, i, apart, classes, hard, share):
    """Return w (hard P + share) of eight classes."""
    q = (
        hard * p[0] + share,
        hard * p[1] + share,
        hard * p[2] + share,
        hard * p[3] + share,
        hard * p[4] + share,
        hard * p[5] + share,
        hard * p[6] + share,
        hard * p[7] + share,
    )
    return times8(q, eight(class_weight, 0, i, apart, classes, _ZERO)) if given(class_weight) else q


@kernel(
    "x* i64 x* i64 i64* f32* f32* f32* i64 i64 i64 f32 f32 f32 f32 f32 f32* f32* f32* f32* i64* x* i64",
    threads=1024,
    registers=64,
    loads=12,
    stores=2,
)
def distribution_rows(
    x,  # (n, classes), rows of `pitch` elements
    pitch,
    probabilities,  # (n, classes), rows of `p_pitch` elements
    p_pitch,
    counts,  # (n,) negative where the row does not count
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
        base, p_base, to = row * pitch, row * p_pitch, row * dx_pitch
        if counts[row] < 0:
            if thread() == 0:
                loss[row], lse[row], nll[row], entropy[row], argmax[row] = _ZERO, _ZERO, _ZERO, _ZERO, -1
            if given(dx):
                fill(dx, to, classes, whole, _ZERO)
        else:
            top, at = thread_top(x, base, classes, whole)
            top, at = block_first(top, at, pairs, places)
            near, high = level(top, factor)
            rest, spread, others, value, p_others, told = _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
            i, apart = begin(whole)
            while i < classes:
                a = at8(eight(x, base, i, apart, classes, ABSENT), at, i, apart, ABSENT)
                d = below8(a, top, factor, cap, near, high)
                e = exponentials8(d)
                rest += sum8(e)
                spread += entropy8(e, d)
                p = at8(eight(probabilities, p_base, i, apart, classes, _ZERO), at, i, apart, _ZERO)
                q = _mass8(p, class_weight, i, apart, classes, hard, share)
                value += dot8(q, d)
                told += dot8(p, d)
                p_others += sum8(p)
                if given(class_weight):
                    others += sum8(at8(q, at, i, apart, _ZERO))
                i, apart = onward(i, apart, whole)
            rest, spread = block_sums(rest, spread, pairs)
            others, value = block_sums(others, value, pairs)
            p_others, told = block_sums(p_others, told, pairs)

            z = cap * tanh(factor * top) if cap > _ZERO else factor * top
            if not abs(z) < -NEGATIVE_INFINITY:
                rest = _NAN
            total, log_total = _ONE + rest, log1p(rest)
            p_top = load1(probabilities, p_base + at)
            of_top = hard * p_top + share
            if given(class_weight):
                of_top *= class_weight[at]
            else:
                others = hard * p_others + share * np.float32(classes - 1)
            mass = others + of_top
            if thread() == 0:
                loss[row], lse[row] = value + mass * log_total, z + log_total
                nll[row] = told + (p_others + p_top) * log_total
                entropy[row], argmax[row] = log_total + spread / total, at
            if given(dx):
                g, h = scale[row] * inverse_t, _TWO * lse_scale[row] * (z + log_total) * inverse_t
                common = (g * mass + h) / total
                at_top = g * (others - mass * rest / total) + h / total
                if cap > _ZERO:
                    at_top *= slope(top, factor)
                i, apart = begin(whole)
                while i < classes:
                    a = eight(x, base, i, apart, classes, ABSENT)
                    p = eight(probabilities, p_base, i, apart, classes, _ZERO)
                    q = _mass8(p, class_weight, i, apart, classes, hard, share)
                    dz = gradient8(exponentials8(below8(a, top, factor, cap, near, high)), common, q, g)
                    if cap > _ZERO:
                        dz = times8(dz, slopes8(a, factor))
                    put8(dx, to, i, apart, classes, at8(dz, at, i, apart, at_top))
                    i, apart = onward(i, apart, whole)
        row += blocks()
