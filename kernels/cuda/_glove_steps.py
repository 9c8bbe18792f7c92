"""What kernels that train GloVe share: a warp that looks at one entry, four features a thread at a time.

The features of a vector are padded to a multiple of 8, so that vectors are aligned for loads of 16 bytes.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda.prims import part, prefetch, rsqrt, warp_sum

WARP = np.int32(128)  # features that a warp looks at at a time
_TWO_WARPS, _THREE_WARPS = np.int32(256), np.int32(384)
_ZERO, _HALF = np.float32(0), np.float64(0.5)
_NONE = (_ZERO, _ZERO, _ZERO, _ZERO)


@part
def _inner(a, b):
    return (a[0] * b[0] + a[1] * b[1]) + (a[2] * b[2] + a[3] * b[3])


def dot_by(load):
    """Return a function for the product of two vectors that are loaded in some way."""

    @part
    def dot(x, i, y, j, lane, pitch):
        """Return the product of the vectors at ``x[i]`` and ``y[j]``, in every thread of the warp."""
        total = _ZERO
        d = np.int32(lane * 4)
        while d < pitch:  # six loads are under way at a time: one round up to 384 features
            a, b = load(x, i + d), load(y, j + d)
            second, third = d + WARP < pitch, d + _TWO_WARPS < pitch
            a2 = load(x, i + d + WARP) if second else _NONE
            b2 = load(y, j + d + WARP) if second else _NONE
            a3 = load(x, i + d + _TWO_WARPS) if third else _NONE
            b3 = load(y, j + d + _TWO_WARPS) if third else _NONE
            total += _inner(a, b) + (_inner(a2, b2) + _inner(a3, b3))
            d = np.int32(d + _THREE_WARPS)
        return warp_sum(total)

    return dot


@part
def ask(g, i, lane, pitch):
    """Ask for the accumulated gradients at ``g[i]``, a line of 32 floats a thread; beyond 1024 they are waited for."""
    if lane * 32 < pitch:
        prefetch(g, i + lane * 32)


@part
def loss_of(slope, error):
    """Return the loss of an entry as float64."""
    return _HALF * np.float64(slope) * np.float64(error)


@part
def steps(partner, slope, limit, rate):
    """Return four features' gradients, clipped, times the rate."""
    return (
        rate * min(max(slope * partner[0], -limit[0]), limit[0]),
        rate * min(max(slope * partner[1], -limit[1]), limit[1]),
        rate * min(max(slope * partner[2], -limit[2]), limit[2]),
        rate * min(max(slope * partner[3], -limit[3]), limit[3]),
    )


@part
def down(t, g):
    """Return how far each of four features goes: ``-t / sqrt(g)``."""
    return -t[0] * rsqrt(g[0]), -t[1] * rsqrt(g[1]), -t[2] * rsqrt(g[2]), -t[3] * rsqrt(g[3])


@part
def plus(a, b):
    """Return the sums of four and four."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]


@part
def squares(t):
    """Return the squares of four."""
    return t[0] * t[0], t[1] * t[1], t[2] * t[2], t[3] * t[3]
