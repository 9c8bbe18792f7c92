"""What the kernels of divergences share: the formulas of one element (of rows: ``_divergence_rows.py``).

    p = softmax(scale y), or y as it is given      q = softmax(scale x)      r = log p/q

The terms are those of ``reference/_divergence.py``, not negative, so that float32 keeps the digits of a small
divergence, and r is a difference of logits before it is anything else. With u = e**-w, w = abs(r), a the weight in
m = beta p + (1 - beta) q of the larger of p and q, and c = 1 - a:

    m / larger = a + c u        t = -log(a + c u) = log(larger / m)        t - w = log(smaller / m)

Nothing of it overflows, and the only logarithm is of a number in [a, 1]. Where w is small, a + c u - 1 = -c (1 - u) is
taken from a series.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fastnlp.kernels.cuda._rows import LOG2E
from fastnlp.kernels.cuda.prims import exp2, log, part

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_FAR = np.float32(1e4)  # e**-w is 0 long before


class Pair(NamedTuple):
    """What an element of two rows takes: ``p_v = 2**(k (y_v - top_p)) inverse_p``, and log p/q of two logits."""

    scale: float  # all float32
    k: float
    top_p: float
    inverse_p: float
    top_q: float
    inverse_q: float
    pivot_p: float
    pivot_q: float
    offset: float


@part
def pair(scale, top_p, total_p, top_q, total_q, given_p):
    """Return the `Pair` of two rows with these maxima and sums of exponentials; of given p, top is 0 and total 1.

    Differences to a pivot are exact: to 0 if both rows are of one height, where y - x is, else to the maxima.
    """
    height = top_p - top_q
    level = abs(height) < _ONE and not given_p
    pivot_p, pivot_q = _ZERO if level else top_p, _ZERO if level else top_q
    offset = (scale * height if level else _ZERO) + log(total_p / total_q)
    return Pair(scale, scale * LOG2E, top_p, _ONE / total_p, top_q, _ONE / total_q, pivot_p, pivot_q, offset)


@part
def p_of(y, two, given_p):
    """Return p of one element."""
    return y if given_p else exp2((y - two.top_p) * two.k) * two.inverse_p


@part
def q_of(x, two):
    """Return q of one element."""
    return exp2((x - two.top_q) * two.k) * two.inverse_q


@part
def log_ratio(y, x, two, given_p):
    """Return log p/q of one element."""
    if given_p:
        return log(y) - (two.scale * (x - two.pivot_q) + two.offset)
    return two.scale * ((y - two.pivot_p) - (x - two.pivot_q)) - two.offset


_2, _3, _4, _5, _6, _7, _8, _9, _10, _11 = (np.float32((-1) ** n / math.factorial(n)) for n in range(2, 12))


@part
def excess(r):
    """Return h(r) = e**-r - 1 + r for abs(r) < 1, without cancellation: a series."""
    high = ((((_11 * r + _10) * r + _9) * r + _8) * r + _7) * r + _6
    return ((((high * r + _5) * r + _4) * r + _3) * r + _2) * (r * r)


@part
def kl(p, q, r):
    """Return p h(r) and q - p, from r = log p/q; both are q where p is 0."""
    h = excess(r)
    near = abs(r) < _ONE
    term = p * h if near else p * r - p + q
    apart = p * (h - r) if near else q - p
    return q if p == _ZERO else term, q if p == _ZERO else apart


@part
def mixture(y, x, two, beta, gamma, given_p):  # gamma = 1 - beta
    """Return p h(log p/m), q h(log q/m), q and log q/m of one element."""
    r = log_ratio(y, x, two, given_p)
    p_is_larger = r >= _ZERO
    w = abs(r)
    w = _FAR if w > _FAR else w  # NaN stays
    a, c = beta if p_is_larger else gamma, gamma if p_is_larger else beta
    larger = p_of(y, two, given_p) if p_is_larger else q_of(x, two)
    u = exp2(-w * LOG2E)
    small = w < _HALF
    delta = c * (w - excess(w))
    m = _ONE - delta if small else a + c * u
    t = -log(m)
    if small:
        t += (m - _ONE) + delta  # what the rounding of m has taken away
    smaller_t = t - w
    of_larger = excess(t) if t < _ONE else t - (_ONE - m)
    of_smaller = u * excess(smaller_t) if abs(smaller_t) < _ONE else m - u + u * smaller_t
    of_larger *= larger
    of_smaller *= larger
    if larger == _ZERO:
        return _ZERO, _ZERO, _ZERO, _ZERO
    q = larger * u if p_is_larger else larger
    if p_is_larger:
        return of_larger, of_smaller, q, smaller_t
    return of_smaller, of_larger, q, t
