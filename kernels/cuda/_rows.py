"""What kernels over rows of classes share: eight classes at a time, the maximum and the sum of exponentials of a row.

One block takes a row at a time, and as many blocks as fit on the device take all rows: what is live then is less than
the second-level cache, so a row that is read a second time comes from there.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda.prims import block_max, block_sum, exp2, load1, load8, part, thread, threads

LOG2E = np.float32(1.4426950408889634)
LOWEST = np.finfo(np.float32).min
"""Where a maximum starts: finite, so that the difference of two such is 0."""
NEGATIVE_INFINITY, _ZERO = np.float32(-np.inf), np.float32(0)


@part
def top8(m, x):
    """Return the largest of m and the eight of x."""
    return max(m, max(max(max(x[0], x[1]), max(x[2], x[3])), max(max(x[4], x[5]), max(x[6], x[7]))))


@part
def exps8(x, m, k):
    """Return 2**(k (x - m)) for each of the eight."""
    return (
        exp2((x[0] - m) * k),
        exp2((x[1] - m) * k),
        exp2((x[2] - m) * k),
        exp2((x[3] - m) * k),
        exp2((x[4] - m) * k),
        exp2((x[5] - m) * k),
        exp2((x[6] - m) * k),
        exp2((x[7] - m) * k),
    )


@part
def sum8(e):
    """Return the sum of the eight."""
    return ((e[0] + e[1]) + (e[2] + e[3])) + ((e[4] + e[5]) + (e[6] + e[7]))


@part
def times8(e, a):
    """Return each of the eight times a."""
    return (e[0] * a, e[1] * a, e[2] * a, e[3] * a, e[4] * a, e[5] * a, e[6] * a, e[7] * a)


@part
def with8(x, d, v):
    """Return the eight with v in place d."""
    return (
        v if d == 0 else x[0],
        v if d == 1 else x[1],
        v if d == 2 else x[2],
        v if d == 3 else x[3],
        v if d == 4 else x[4],
        v if d == 5 else x[5],
        v if d == 6 else x[6],
        v if d == 7 else x[7],
    )


@part
def top_and_sum(x, base, classes, whole, k, shared):
    """Return the largest m of a row and sum_v 2**(k (x_v - m)), in every thread; NaN in the row makes the sum NaN."""
    me, step = np.int32(thread() * 8), np.int32(threads() * 8)
    m, total = LOWEST, _ZERO
    i = me
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
