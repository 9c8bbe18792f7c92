"""How far the logits of a row are below its largest, after temperature and soft-cap, and the sums over that.

Kernels whose sums need the largest logit first (`smoothed_rows`, `distribution_rows`) share this. With `factor` the
inverse of the temperature, or of temperature times soft-cap `cap` (0: none), and m the largest x of the row:

    z = factor x, or cap tanh(factor x)      below = z_m - z >= 0

Where tanh is flat, differences of its values are those of ``flatness(a) = 1 - tanh |a|``, which has digits of its own.
NaN stands for a class that is not there, or that is kept out: its exponential is 0, and it adds to no sum.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._rows import LOG2E
from fastnlp.kernels.cuda.prims import exp2, part, reciprocal, tanh

ABSENT = np.float32(np.nan)
_ZERO, _HALF, _ONE, _TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
_FAR = np.float32(1e4)  # exp(-_FAR) is 0


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
