"""How far the logits of a row are below its largest, after temperature and soft-cap, and the way through a row.

Kernels whose sums need the largest logit first (`smoothed_rows`, `distribution_rows`) share this. With `factor` the
inverse of the temperature, or of temperature times soft-cap `cap` (0: none), and m the largest x of the row:

    z = factor x, or cap tanh(factor x)      below = z_m - z >= 0

Where tanh is flat, differences of its values are those of ``flatness(a) = 1 - tanh |a|``, which has digits of its own.

A thread takes eight classes at a time: neighbours as long as they can be read at once (`apart` is 1), then, to the end
of the row, classes that are as far apart as the block has threads, so that neighbouring threads read neighbours. NaN
stands for a class that is not there, or that is kept out: its exponential is 0, and it adds to no sum.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._rows import LOG2E
from fastnlp.kernels.cuda.prims import (
    exp2,
    load1,
    load8,
    maximum,
    part,
    reciprocal,
    store1,
    store8,
    tanh,
    thread,
    threads,
)

ABSENT = np.float32(np.nan)
NEGATIVE_INFINITY = np.float32(-np.inf)
NOWHERE = np.int32(2**31 - 1)
_ZERO, _HALF, _ONE, _TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
_FAR = np.float32(1e4)  # exp(-_FAR) is 0


@part
def _from(i, whole):
    return (i, np.int32(1)) if i < whole else (np.int32(whole + thread()), threads())


@part
def begin(whole):
    """Return the first class of this thread, and how far apart its eight are."""
    return _from(np.int32(thread() * 8), whole)


@part
def onward(i, apart, whole):
    """Return the next ones."""
    i = np.int32(i + threads() * 8)
    return _from(i, whole) if apart == 1 else (i, apart)


@part
def eight(x, base, i, apart, classes, absent):
    """Return classes i, i + apart, ... of the row that starts at `base`, and `absent` beyond its end."""
    if apart == 1:
        return load8(x, base + i)
    return (
        load1(x, base + i) if i < classes else absent,
        load1(x, base + i + apart) if i + apart < classes else absent,
        load1(x, base + i + 2 * apart) if i + 2 * apart < classes else absent,
        load1(x, base + i + 3 * apart) if i + 3 * apart < classes else absent,
        load1(x, base + i + 4 * apart) if i + 4 * apart < classes else absent,
        load1(x, base + i + 5 * apart) if i + 5 * apart < classes else absent,
        load1(x, base + i + 6 * apart) if i + 6 * apart < classes else absent,
        load1(x, base + i + 7 * apart) if i + 7 * apart < classes else absent,
    )


@part
def put8(x, base, i, apart, classes, values):
    """Write classes i, i + apart, ... of the row that starts at `base`, as far as there are."""
    if apart == 1:
        store8(x, base + i, values)
        return
    if i < classes:
        store1(x, base + i, values[0])
    if i + apart < classes:
        store1(x, base + i + apart, values[1])
    if i + 2 * apart < classes:
        store1(x, base + i + 2 * apart, values[2])
    if i + 3 * apart < classes:
        store1(x, base + i + 3 * apart, values[3])
    if i + 4 * apart < classes:
        store1(x, base + i + 4 * apart, values[4])
    if i + 5 * apart < classes:
        store1(x, base + i + 5 * apart, values[5])
    if i + 6 * apart < classes:
        store1(x, base + i + 6 * apart, values[6])
    if i + 7 * apart < classes:
        store1(x, base + i + 7 * apart, values[7])


@part
def fill(x, base, classes, whole, value):
    """Write one value to all classes of a row."""
    i, apart = begin(whole)
    while i < classes:
        put8(x, base, i, apart, classes, (value, value, value, value, value, value, value, value))
        i, apart = onward(i, apart, whole)


@part
def at8(values, v, i, apart, value):
    """Return the eight of classes i, i + apart, ... with `value` for class v, if it is among them."""
    if np.uint32(v - i) >= np.uint32(8 * apart):
        return values
    return (
        value if v == i else values[0],
        value if v == i + apart else values[1],
        value if v == i + 2 * apart else values[2],
        value if v == i + 3 * apart else values[3],
        value if v == i + 4 * apart else values[4],
        value if v == i + 5 * apart else values[5],
        value if v == i + 6 * apart else values[6],
        value if v == i + 7 * apart else values[7],
    )


@part
def _largest(m, x):
    """Return the largest of m and the eight, NaN if there is one."""
    left = maximum(maximum(x[0], x[1]), maximum(x[2], x[3]))
    return maximum(m, maximum(left, maximum(maximum(x[4], x[5]), maximum(x[6], x[7]))))


@part
def _larger(m, first, x, i):
    """Return the largest of m and the eight from class i on, and `first`, or i if it is among them."""
    larger = _largest(m, x)
    return (larger, i) if m == m and not larger <= m else (m, first)


@part
def _is(x, m):
    return x == m or x != x


@part
def thread_top(x, base, classes, whole):
    """Return the largest logit that this thread sees of a row, NaN if there is one, and the first class that has it."""
    m = NEGATIVE_INFINITY
    i, step = np.int32(thread() * 8), np.int32(threads() * 8)
    first, _ = _from(i, whole)
    while i + step < whole:  # two loads are under way at a time
        a, b = load8(x, base + i), load8(x, base + i + step)
        m, first = _larger(m, first, a, i)
        m, first = _larger(m, first, b, np.int32(i + step))
        i = np.int32(i + 2 * step)
    i, apart = _from(i, whole)
    while i < classes:
        m, first = _larger(m, first, eight(x, base, i, apart, classes, NEGATIVE_INFINITY), i)
        i, apart = onward(i, apart, whole)
    if first >= classes:
        return m, NOWHERE
    apart = np.int32(1) if first < whole else threads()
    a = eight(x, base, first, apart, classes, NEGATIVE_INFINITY)
    j = np.int32(7)
    j = np.int32(6) if _is(a[6], m) else j
    j = np.int32(5) if _is(a[5], m) else j
    j = np.int32(4) if _is(a[4], m) else j
    j = np.int32(3) if _is(a[3], m) else j
    j = np.int32(2) if _is(a[2], m) else j
    j = np.int32(1) if _is(a[1], m) else j
    j = np.int32(0) if _is(a[0], m) else j
    return m, np.int32(first + j * apart)


@part
def flatness(a):
    """Return 1 - tanh |a|."""
    e = exp2(-abs(a) * (_TWO * LOG2E))
    return _TWO * e * reciprocal(_ONE + e)


@part
def slope(x, factor):
    """Return 1 - tanh(factor x)**2."""
    f = flatness(factor * x)
    return f * (_TWO - f)


@part
def level(m, factor):
    """Return what `below8` compares with: False and flatness(factor m) where tanh is flat, else True and the tanh."""
    at = tanh(factor * m)
    near = abs(at) < _HALF
    return near, at if near else flatness(factor * m)


@part
def below1(x, m, factor, cap, near, at):
    """Return z_m - z of one class."""
    if cap == _ZERO:
        return factor * (m - x)
    if near:
        return cap * (at - tanh(factor * x))
    f = flatness(factor * x)
    if m < _ZERO:
        return cap * (at - f)
    return cap * ((f if x > _ZERO else _TWO - f) - at)


@part
def below8(x, m, factor, cap, near, at):
    """Return z_m - z of eight classes."""
    return (
        below1(x[0], m, factor, cap, near, at),
        below1(x[1], m, factor, cap, near, at),
        below1(x[2], m, factor, cap, near, at),
        below1(x[3], m, factor, cap, near, at),
        below1(x[4], m, factor, cap, near, at),
        below1(x[5], m, factor, cap, near, at),
        below1(x[6], m, factor, cap, near, at),
        below1(x[7], m, factor, cap, near, at),
    )


@part
def exponentials8(d):
    """Return exp(-below) of eight, 0 for NaN."""
    return (
        exponential(d[0]),
        exponential(d[1]),
        exponential(d[2]),
        exponential(d[3]),
        exponential(d[4]),
        exponential(d[5]),
        exponential(d[6]),
        exponential(d[7]),
    )


@part
def exponential(d):
    """Return exp(-below), 0 for NaN."""
    return exp2(-LOG2E * min(_FAR, d))


@part
def slopes8(x, factor):
    """Return dz/dx / (cap factor) = 1 - tanh(factor x)**2 of eight."""
    return (
        slope(x[0], factor),
        slope(x[1], factor),
        slope(x[2], factor),
        slope(x[3], factor),
        slope(x[4], factor),
        slope(x[5], factor),
        slope(x[6], factor),
        slope(x[7], factor),
    )


@part
def entropy8(e, d):
    """Return the sum of e below over eight, where e is not 0."""
    return ((e[0] * min(_FAR, d[0]) + e[1] * min(_FAR, d[1])) + (e[2] * min(_FAR, d[2]) + e[3] * min(_FAR, d[3]))) + (
        (e[4] * min(_FAR, d[4]) + e[5] * min(_FAR, d[5])) + (e[6] * min(_FAR, d[6]) + e[7] * min(_FAR, d[7]))
    )


@part
def dot8(q, d):
    """Return the sum of q below over eight, with 0 inf = 0 and without what is not there."""
    return ((_times(q[0], d[0]) + _times(q[1], d[1])) + (_times(q[2], d[2]) + _times(q[3], d[3]))) + (
        (_times(q[4], d[4]) + _times(q[5], d[5])) + (_times(q[6], d[6]) + _times(q[7], d[7]))
    )


@part
def _times(q, d):
    product = q * d
    return product if product == product else _ZERO


@part
def times8(a, b):
    """Return the products of eight and eight."""
    return (a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3], a[4] * b[4], a[5] * b[5], a[6] * b[6], a[7] * b[7])


@part
def gradient8(e, common, q, factor):
    """Return common e - factor q of eight."""
    return (
        common * e[0] - factor * q[0],
        common * e[1] - factor * q[1],
        common * e[2] - factor * q[2],
        common * e[3] - factor * q[3],
        common * e[4] - factor * q[4],
        common * e[5] - factor * q[5],
        common * e[6] - factor * q[6],
        common * e[7] - factor * q[7],
    )
