"""The way of a block through a row of classes: which eight a thread takes, and the first of the largest logits.

A thread takes eight classes at a time: neighbours as long as they can be read at once (`apart` is 1), then, to the end
of the row, classes that are as far apart as the block has threads, so that neighbouring threads read neighbours.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._rows import NEGATIVE_INFINITY
from fastnlp.kernels.cuda.prims import load1, load8, maximum, part, store1, store8, thread, threads

_NOWHERE = np.int32(2**31 - 1)


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
        return m, _NOWHERE
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
