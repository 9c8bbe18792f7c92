"""Parts of a row's cross-entropy with options, and of its gradient (the equations: ``reference/_criterion.py``).

The class of the largest logit is kept apart, and all sums are over the others, from below_v = z_top - z_v: a block of
below stays in the first-level cache while one loop after another sums over it. `scale` is that of the logits,
1 / temperature, or 1 / (temperature softcap) with a soft-cap; `cap` is 0 without one.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from fastnlp.kernels.cpu._jit import kernel_part
from fastnlp.kernels.cpu._rows import BLOCK, row_max
from fastnlp.kernels.scalar import EXP_SCALE, scaled_exp, tanh

_UNSCALE = 1 / EXP_SCALE
_FAR = 1e4  # exp(-_FAR) is 0


@kernel_part
def row_top(row):  # (V,)
    """Return the maximum of the row and where it first stands; NaN skipped."""
    top, at = row.dtype.type(-np.inf), 0
    for begin in range(0, row.size, BLOCK):
        highest = row_max(row[begin : begin + BLOCK])
        if highest > top:
            top, at = highest, begin
    while at < row.size - 1 and row[at] != top:
        at += 1
    return top, at


@kernel_part
def first_nan(row, otherwise):  # (V,)
    """Return where the first NaN of the row stands."""
    for v in range(row.size):
        if row[v] != row[v]:
            return v
    return otherwise


@kernel_part
def logit(x, temperature, cap):
    """Return z of one class in float64: x / temperature, and soft-capped unless `cap` is 0."""
    z = np.float64(x) / temperature
    return cap * math.tanh(z / cap) if cap else z


# In the order written, as `nll_and_lse` is.
@njit(fastmath=False, error_model="numpy")
def gap(top, other, temperature, cap):
    """Return z_top - z of another class in float64."""
    if cap:
        return logit(top, temperature, cap) - logit(other, temperature, cap)
    return (np.float64(top) - np.float64(other)) / temperature


@kernel_part
def _flatness(a):
    """Return 1 - tanh(abs(a)) with digits of its own."""
    e = scaled_exp(-abs(a + a)) * type(a)(_UNSCALE)
    return (e + e) / (e + type(a)(1))


@kernel_part
def _write_below(x, top, scale, cap, out):  # (V,), (V,)
    """out = z_top - z for z = scale x, or cap tanh(scale x) with a cap.

    Where tanh is flat, its differences are those of 1 - tanh.
    """
    at_top, one, two = tanh(scale * top), x.dtype.type(1), x.dtype.type(2)
    if not cap:
        for j in range(x.size):
            out[j] = scale * (top - x[j])
    elif abs(at_top) < 0.5:
        for j in range(x.size):
            out[j] = cap * (at_top - tanh(scale * x[j]))
    else:
        side, flat = (one if top > 0 else -one), _flatness(scale * top)
        for j in range(x.size):
            f = _flatness(scale * x[j])
            out[j] = cap * side * ((f if side * x[j] > 0 else two - f) - flat)


@kernel_part
def _exp_sums(below, out):  # (V,), (V,)
    """out = e = exp(-below); return the sums of e and of e below."""
    far, unscale = below.dtype.type(_FAR), below.dtype.type(_UNSCALE)
    nothing = scaled_exp(-far)
    rest = weighted = below.dtype.type(0)
    for j in range(below.size):
        d = far if below[j] > far else below[j]
        e = (scaled_exp(-d) - nothing) * unscale
        out[j] = e
        rest += e
        weighted += e * d
    return np.float64(rest), np.float64(weighted)


@kernel_part
def _dot(weight, below):  # (V,), (V,)
    """Return sum(weight below), 0 inf = 0."""
    total, zero = below.dtype.type(0), below.dtype.type(0)
    for j in range(below.size):
        total += weight[j] * (zero if weight[j] == zero else below[j])
    return np.float64(total)


@kernel_part
def _dots(probability, weight, below):  # (V,) each
    """Return the sums of P, of P below, of w P and of w P below, 0 inf = 0."""
    zero = below.dtype.type(0)
    mass = total = weighted_mass = weighted = zero
    for j in range(below.size):
        p, q = probability[j], probability[j] * weight[j]
        mass += p
        total += p * (zero if p == zero else below[j])
        weighted_mass += q
        weighted += q * (zero if q == zero else below[j])
    return np.float64(mass), np.float64(total), np.float64(weighted_mass), np.float64(weighted)


@kernel_part
def add_others(x, top, scale, cap, probability, weight, even, out, space, sums):
    # (V,), (V,) or (0,), (V,) or (0,), (V,) or (0,), (2, BLOCK), (7,)
    """Add to `sums`, over classes that are not the top: e, e below, w below; P, P below, w P, w P below.

    P is left out without `probability`, w below without `even`; `out` = e unless it is empty.
    """
    for begin in range(0, x.size, BLOCK):
        block = x[begin : begin + BLOCK]
        below = space[0, : block.size]
        _write_below(block, top, scale, cap, below)
        e = out[begin : begin + BLOCK] if out.size else space[1, : block.size]
        rest, weighted = _exp_sums(below, e)
        sums[0] += rest
        sums[1] += weighted
        if even:
            sums[2] += _dot(weight[begin : begin + BLOCK], below)
        if probability.size:
            mass, total, weighted_mass, weighted = _dots(
                probability[begin : begin + BLOCK], weight[begin : begin + BLOCK], below
            )
            sums[3] += mass
            sums[4] += total
            sums[5] += weighted_mass
            sums[6] += weighted


@kernel_part
def row_gradient(e, common, probability, weight, hard, even):  # (V,), (V,) or (0,), (V,)
    """Replace e by common e - w (hard P + even)."""
    common, hard, even = e.dtype.type(common), e.dtype.type(hard), e.dtype.type(even)
    if probability.size:
        for v in range(e.size):
            e[v] = common * e[v] - weight[v] * (hard * probability[v] + even)
    elif even:
        for v in range(e.size):
            e[v] = common * e[v] - weight[v] * even
    else:
        for v in range(e.size):
            e[v] *= common


@kernel_part
def slope(x, scale, cap):
    """Return dz/dx times the temperature: 1 - tanh(scale x)^2, or 1 without a soft-cap."""
    if not cap:
        return type(x)(1)
    f = _flatness(scale * x)
    return f * (type(x)(2) - f)


@kernel_part
def row_slope(x, scale, out):  # (V,), (V,)
    """out *= 1 - tanh(scale x)^2."""
    for v in range(x.size):
        f = _flatness(scale * x[v])
        out[v] *= f * (x.dtype.type(2) - f)
