"""What the kernels of divergences share: the formulas of one element (of rows: ``_divergence_rows.py``).

The terms are those of ``reference/_divergence.py``, not negative, so that float32 keeps the digits of a small
divergence. With u = e**-w, w = abs(log p / q), a the weight in m of the larger of p and q, and c = 1 - a:

    m / larger = a + c u        t = -log(a + c u) = log(larger / m)        t - w = log(smaller / m)

Nothing of it overflows, and the only logarithm is of a number in [a, 1]. Where w is small, a + c u - 1 = -c (1 - u) is
taken from a series, and its logarithm from another.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import overload

from fastnlp.kernels.cpu._jit import kernel_part
from fastnlp.kernels.scalar import exp, log

# In the order written, by flags of their own (Numba's own inlining would take the caller's): the leave to reorder would
# undo pivots and corrections. And within the loop, whatever LLVM finds them to cost, or it would not vectorise.
in_order = njit(fastmath={"contract", "nsz"}, error_model="numpy", forceinline=True)


class Pair(NamedTuple):
    """Two softmaxes of one row, ``p_v = exp(scale (y_v - top_p)) inverse_p``, and what log(p / q) takes."""

    scale: float  # all of the dtype of the logits
    top_p: float
    inverse_p: float
    top_q: float
    inverse_q: float
    pivot_p: float
    pivot_q: float
    offset: float


@njit(fastmath=False, error_model="numpy")
def pair(scale, top_p, total_p, top_q, total_q):
    """Return the `Pair` of two rows with these maxima and float64 sums of exponentials.

    Differences to a pivot are exact: to 0 if both rows are of one height, where y - x is, else to the maxima.
    """
    kind = type(top_p)
    height = top_p - top_q
    level = abs(height) < kind(1)
    pivot_p, pivot_q = (kind(0), kind(0)) if level else (top_p, top_q)
    offset = np.float64(scale) * np.float64(height) if level else 0.0
    offset += math.log(total_p / total_q)
    return Pair(scale, top_p, kind(1.0 / total_p), top_q, kind(1.0 / total_q), pivot_p, pivot_q, kind(offset))


@in_order
def log_ratio(y, x, two):
    """Return log(p / q) of one element."""
    return two.scale * ((y - two.pivot_p) - (x - two.pivot_q)) - two.offset


def excess(r):
    """Return h(r) = e**-r - 1 + r for abs(r) <= 1 (float32) or 1/2 (float64), without cancellation: a series."""
    return math.expm1(-r) + r


@overload(excess, jit_options={"fastmath": {"contract", "nsz"}})
def _excess_overload(r):
    if r == types.float32:
        return _excess_float32
    if r == types.float64:
        return _excess_float64
    return None


_F = tuple(np.float32((-1) ** n / math.factorial(n)) for n in range(12))
_F2, _F3, _F4, _F5, _F6, _F7, _F8, _F9, _F10, _F11 = _F[2:]


def _excess_float32(r):
    p = ((((_F11 * r + _F10) * r + _F9) * r + _F8) * r + _F7) * r + _F6
    return ((((p * r + _F5) * r + _F4) * r + _F3) * r + _F2) * (r * r)


_D = tuple((-1) ** n / math.factorial(n) for n in range(16))
_D2, _D3, _D4, _D5, _D6, _D7, _D8, _D9, _D10, _D11, _D12, _D13, _D14, _D15 = _D[2:]


def _excess_float64(r):
    p = (((((_D15 * r + _D14) * r + _D13) * r + _D12) * r + _D11) * r + _D10) * r + _D9
    return (((((((p * r + _D8) * r + _D7) * r + _D6) * r + _D5) * r + _D4) * r + _D3) * r + _D2) * (r * r)


_NEAR = {types.float32: np.float32(1), types.float64: 0.5}
_FAR = 1e4  # e**-w is 0 long before


def near(r):
    """Tell whether abs(r) is in the range of `excess`."""
    return abs(r) < 0.5


@overload(near)
def _near_overload(r):
    limit = _NEAR[r]
    return lambda r: abs(r) < limit


@in_order
def kl_term(p, q, r):
    """Return p h(r), from r = log(p / q); q where p is 0."""
    zero = type(p)(0)
    term = p * excess(r) if near(r) else p * r - p + q
    return q if p == zero else term


@in_order
def kl_slope(p, q, mass, factor):
    """Return the gradient of KL(p || q) in the logit of q, p of sum `mass`."""
    return factor * (mass * q - p)


@in_order
def mixture(y, x, two, beta, gamma):  # gamma = 1 - beta
    """Return p h(log p/m), q h(log q/m), q and log q/m of one element."""
    kind = type(y)
    zero, one, half = kind(0), kind(1), kind(0.5)
    r = log_ratio(y, x, two)
    p_is_larger = r >= zero
    w = min(abs(r), kind(_FAR))
    a, c = (beta, gamma) if p_is_larger else (gamma, beta)
    larger = (
        exp(two.scale * (y - two.top_p)) * two.inverse_p
        if p_is_larger
        else exp(two.scale * (x - two.top_q)) * two.inverse_q
    )
    u = exp(-w)
    small = w < half
    delta = c * (w - excess(w))
    m = one - delta if small else a + c * u
    t = -log(m)
    t += ((m - one) + delta) / m if small else zero  # what the rounding of m has taken away
    smaller_t = t - w
    of_larger = excess(t) if near(t) else t - (one - m)
    of_smaller = u * excess(smaller_t) if near(smaller_t) else m - u + u * smaller_t
    nothing = larger == zero
    of_larger = zero if nothing else larger * of_larger
    of_smaller = zero if nothing else larger * of_smaller
    q = larger * u if p_is_larger else larger
    log_q_m = smaller_t if p_is_larger else t
    return (
        of_larger if p_is_larger else of_smaller,
        of_smaller if p_is_larger else of_larger,
        q,
        zero if nothing else log_q_m,
    )


@kernel_part
def swapped(two):
    """Return the `Pair` of q and p."""
    return Pair(two.scale, two.top_q, two.inverse_q, two.top_p, two.inverse_p, two.pivot_q, two.pivot_p, -two.offset)
