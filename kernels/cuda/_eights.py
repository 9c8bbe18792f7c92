"""Eight features at a time: sums, and reads and writes of fewer than eight or of some that are not aligned."""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda.prims import load1, part, store1

_ZERO = np.float32(0)


@part
def some_of_eight(x, at, there):
    """Return the first `there` of 8 elements from `at` on, 0 for the others."""
    return (
        load1(x, at),
        load1(x, at + 1) if there > 1 else _ZERO,
        load1(x, at + 2) if there > 2 else _ZERO,
        load1(x, at + 3) if there > 3 else _ZERO,
        load1(x, at + 4) if there > 4 else _ZERO,
        load1(x, at + 5) if there > 5 else _ZERO,
        load1(x, at + 6) if there > 6 else _ZERO,
        load1(x, at + 7) if there > 7 else _ZERO,
    )


@part
def write_some(x, at, there, v):
    """Write the first `there` of the eight from `at` on."""
    store1(x, at, v[0])
    if there > 1:
        store1(x, at + 1, v[1])
    if there > 2:
        store1(x, at + 2, v[2])
    if there > 3:
        store1(x, at + 3, v[3])
    if there > 4:
        store1(x, at + 4, v[4])
    if there > 5:
        store1(x, at + 5, v[5])
    if there > 6:
        store1(x, at + 6, v[6])
    if there > 7:
        store1(x, at + 7, v[7])


@part
def plus8(a, b):
    """Return the sums of two eights."""
    return (
        a[0] + b[0],
        a[1] + b[1],
        a[2] + b[2],
        a[3] + b[3],
        a[4] + b[4],
        a[5] + b[5],
        a[6] + b[6],
        a[7] + b[7],
    )


@part
def eight_of(v):
    """Return v eight times."""
    return (v, v, v, v, v, v, v, v)


@part
def over8(a, b):
    """Return each of the eight divided by b."""
    return (a[0] / b, a[1] / b, a[2] / b, a[3] / b, a[4] / b, a[5] / b, a[6] / b, a[7] / b)


@part
def equal8(a, b):
    """Tell which of the eight are b."""
    return (a[0] == b, a[1] == b, a[2] == b, a[3] == b, a[4] == b, a[5] == b, a[6] == b, a[7] == b)
