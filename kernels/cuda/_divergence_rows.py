"""What the kernels of divergences share: passes of a block over a row, eight classes at a time, and what they write.

Of a row: `base`, the offset of its first class; `whole`, how many of its classes are read eight at a time; `shared`,
what reductions go through.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._divergence import pair
from fastnlp.kernels.cuda._rows import LOG2E, NEGATIVE_INFINITY, exps8, sum8, times8, top_and_sum, with8
from fastnlp.kernels.cuda.prims import (
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

_ZERO, _QUARTER, _ONE = np.float32(0), np.float32(0.25), np.float32(1)


@part
def row_pair(x, base, y, y_base, classes, whole, scale, given_p, shared):
    """Return the `Pair` of two rows, and S - 1, S the sum of p where it is given."""
    top_q, total_q = top_and_sum(x, base, classes, whole, scale * LOG2E, shared)
    if given_p:
        more = _row_sum(y, y_base, classes, whole, shared) - _ONE
        return pair(scale, _ZERO, _ONE, top_q, total_q, given_p), more
    top_p, total_p = top_and_sum(y, y_base, classes, whole, scale * LOG2E, shared)
    return pair(scale, top_p, total_p, top_q, total_q, given_p), _ZERO


@part
def _row_sum(y, base, classes, whole, shared):
    total = _ZERO
    i = np.int32(thread() * 8)
    while i < whole:
        total += sum8(load8(y, base + i))
        i = np.int32(i + threads() * 8)
    i = np.int32(whole + thread())
    while i < classes:
        total += load1(y, base + i)
        i = np.int32(i + threads())
    return block_sum(total, shared)


@part
def cross_entropy(x, base, classes, whole, t, top, shared):
    """Return -log softmax(x)_t, 1 / total and rest / total: sums of e**(x - top) over all classes, and all but t."""
    apart = load1(x, base + t) - top  # before the barriers of the sum: what is written may be x
    rest = _ZERO
    i = np.int32(thread() * 8)
    while i < whole:
        a = load8(x, base + i)
        if np.uint32(t - i) < 8:
            a = with8(a, t - i, NEGATIVE_INFINITY)
        rest += sum8(exps8(a, top, LOG2E))
        i = np.int32(i + threads() * 8)
    i = np.int32(whole + thread())
    while i < classes:
        if i != t:
            rest += exp2((load1(x, base + i) - top) * LOG2E)
        i = np.int32(i + threads())
    rest = block_sum(rest, shared)
    e = exp2(apart * LOG2E)
    total = rest + e
    loss = log1p(rest / e) if e > _QUARTER else log(total) - apart
    return loss, _ONE / total, rest / total


@part
def store_row8(dx, to, i, soft, x, t, top, rate, of_label, hard):
    """Write eight gradients: soft, and where there is a hard part rate e**(x - top), or of_label for the class t."""
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
