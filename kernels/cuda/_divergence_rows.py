"""What the kernels of divergences share: passes of a block over a row, eight classes at a time, and what they write.

Of a row: `base`, the offset of its first class; `whole`, how many of its classes are read eight at a time; `shared`,
what reductions go through.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._rows import LOG2E, LOWEST, NEGATIVE_INFINITY, exps8, sum8, times8, top8, with8
from fastnlp.kernels.cuda.prims import (
    block_max,
    block_sum,
    exp2,
    load1,
    load8,
    log,
    log1p,
    part,
    store1,
    store8,
    thread,
    threads,
)

_ZERO, _QUARTER = np.float32(0), np.float32(0.25)
_NAN = np.float32(np.nan)


@part
def top_and_total(x, base, classes, whole, k, shared):
    """Return the largest x of a row, and the sum of 2**(k (x - top))."""
    step = np.int32(threads() * 8)
    m, total = LOWEST, _ZERO
    i = np.int32(thread() * 8)
    while i + step < whole:  # two loads are under way at a time
        a = load8(x, base + i)
        b = load8(x, base + i + step)
        larger = top8(top8(m, a), b)
        total = total * exp2((m - larger) * k) + (sum8(exps8(a, larger, k)) + sum8(exps8(b, larger, k)))
        m = larger
        i = np.int32(i + 2 * step)
    if i < whole:
        a = load8(x, base + i)
        larger = top8(m, a)
        total = total * exp2((m - larger) * k) + sum8(exps8(a, larger, k))
        m = larger
    i = np.int32(whole + thread())
    while i < classes:
        one = load1(x, base + i)
        larger = max(m, one)
        total = total * exp2((m - larger) * k) + exp2((one - larger) * k)
        m = larger
        i = np.int32(i + threads())
    top = block_max(m, shared)
    return top, block_sum(total * exp2((m - top) * k), shared)


@part
def mass(p, base, classes, whole, shared):
    """Return the sum of a row."""
    total = _ZERO
    i = np.int32(thread() * 8)
    while i < whole:
        total += sum8(load8(p, base + i))
        i = np.int32(i + threads() * 8)
    i = np.int32(whole + thread())
    while i < classes:
        total += load1(p, base + i)
        i = np.int32(i + threads())
    return block_sum(total, shared)


@part
def others(x, base, classes, whole, t, top, shared):
    """Return the sum of e**(x - top) over a row without that of the class t."""
    total = _ZERO
    i = np.int32(thread() * 8)
    while i < whole:
        a = load8(x, base + i)
        if np.uint32(t - i) < 8:
            a = with8(a, t - i, NEGATIVE_INFINITY)
        total += sum8(exps8(a, top, LOG2E))
        i = np.int32(i + threads() * 8)
    i = np.int32(whole + thread())
    while i < classes:
        if i != t:
            total += exp2((load1(x, base + i) - top) * LOG2E)
        i = np.int32(i + threads())
    return block_sum(total, shared)


@part
def cross_entropy(rest, apart):
    """Return -log softmax(z)_t and the sum of exponentials, from those of the others and z_t - top."""
    e = exp2(apart * LOG2E)
    total = rest + e
    return log1p(rest / e) if e > _QUARTER else log(total) - apart, total


@part
def store_row8(dx, to, i, soft, x, t, top, rate, of_label, hard):
    """Write eight gradients: soft, with hard softmax(z) - onehot(t) added where that is wanted."""
    if hard != _ZERO:
        a = times8(exps8(x, top, LOG2E), rate)
        if np.uint32(t - i) < 8:
            a = with8(a, t - i, of_label)
        soft = (
            soft[0] + a[0],
            soft[1] + a[1],
            soft[2] + a[2],
            soft[3] + a[3],
            soft[4] + a[4],
            soft[5] + a[5],
            soft[6] + a[6],
            soft[7] + a[7],
        )
    store8(dx, to + i, soft)


@part
def store_row1(dx, to, i, soft, x, t, top, rate, of_label, hard):
    """Write one gradient as `store_row8` does."""
    if hard != _ZERO:
        soft += of_label if i == t else rate * exp2((x - top) * LOG2E)
    store1(dx, to + i, soft)


@part
def fill_row(dx, to, classes, whole, value):
    """Write one value to a row."""
    i = np.int32(thread() * 8)
    while i < whole:
        store8(dx, to + i, (value, value, value, value, value, value, value, value))
        i = np.int32(i + threads() * 8)
    i = np.int32(whole + thread())
    while i < classes:
        store1(dx, to + i, value)
        i = np.int32(i + threads())
