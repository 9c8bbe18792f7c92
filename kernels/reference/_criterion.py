"""Losses and gradients of a block of rows of logits: the pieces of every cross-entropy.

With m the class of the largest z, below_v = z_m - z_v and rest = sum_{v != m} exp(-below_v), for a target's mass q:

    lse = z_m + log1p(rest)      l = sum_v q_v (lse - z_v) = sum_v q_v below_v + a log1p(rest),   a = sum_v q_v
    dz_v = s (a p_v - q_v) + 2 s' lse p_v,   p_v = exp(-below_v) / (1 + rest)       (s, s': the factors of l and lse^2)
    dz_m = s ((a - q_m) - a rest / (1 + rest)) + 2 s' lse / (1 + rest)

All terms of l are of one sign, and dz_m holds no difference of numbers near each other, so both keep their digits where
the prediction is confident (p_m near 1) and where logits are large. Sums run in float64. A class without mass adds
nothing, whatever its logit: 0 inf = 0 here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_IN_CACHE = 1 << 18  # bytes of logits of a block


def blocks(x, criterion):  # (N, V)
    """Return where the rows that count stand, a block of rows at a time: slices, or indices if some do not count."""
    n, classes = x.shape
    target = criterion.target
    if not classes:
        return []
    step = rows_in_cache(classes, x.itemsize)
    if target is None or (target >= 0).all():
        return [slice(begin, min(begin + step, n)) for begin in range(0, n, step)]
    kept = np.flatnonzero(target >= 0)
    return [kept[begin : begin + step] for begin in range(0, len(kept), step)]


def rows_in_cache(classes, itemsize):
    """Return how many rows of logits make a block."""
    return max(1, _IN_CACHE // max(1, classes * itemsize))


def bytes_a_row(classes, itemsize):
    """Return the bytes that a row of a block takes at most in temporaries."""
    return classes * (4 * itemsize + 3 * 8)


@np.errstate(invalid="ignore", divide="ignore", over="ignore")
def losses(x, criterion, rows, loss, lse, stats):  # (B, V), slice or (B,), (N,), (N,)
    """Fill loss, lse and stats at `rows`, whose logits are x."""
    part = _compare(x, criterion, rows)
    loss[rows], lse[rows] = part.loss, part.lse
    _tell(part, criterion, stats)


@np.errstate(invalid="ignore", divide="ignore", over="ignore")
def gradients(x, criterion, rows, scale, lse_scale, loss, lse, stats, dx):
    # (B, V), slice or (B,), (N,), (N,) or None, (N,), (N,), (B, V): may be x
    """As `losses`, and dx = the gradient of sum_n scale_n loss_n + lse_scale_n lse_n^2 in the rows' logits."""
    part = _compare(x, criterion, rows)
    loss[rows], lse[rows] = part.loss, part.lse
    _tell(part, criterion, stats)

    at, total = np.arange(len(x)), 1 + part.rest
    s = scale[rows].astype(np.float64)
    squared = 0.0 if lse_scale is None else 2 * lse_scale[rows] * part.lse
    mass, share = part.mass, criterion.label_smoothing / x.shape[1]
    if criterion.target is None:
        probabilities = criterion.probabilities[rows]
        of_top = probabilities[at, part.top].astype(np.float64) * (1 - criterion.label_smoothing) + share
        if criterion.class_weight is not None:
            of_top *= criterion.class_weight[part.top]
    else:
        target = criterion.target[rows]
        of_target = (1 - criterion.label_smoothing) * _weight_of(criterion, target)
        of_top = np.where(part.top == target, of_target, 0) + share * _weight_of(criterion, part.top)
    dtop = s * ((mass - of_top) - mass * part.rest / total) + squared / total

    dz = part.exp
    dz *= ((s * mass + squared) / total).astype(dz.dtype)[:, None]
    narrow = s.astype(dz.dtype)[:, None]
    if criterion.target is None:
        q = probabilities * dz.dtype.type(1 - criterion.label_smoothing)
        q += dz.dtype.type(share)
        if criterion.class_weight is not None:
            q *= criterion.class_weight
        q *= narrow
        dz -= q
    else:
        if share:
            weight = 1 if criterion.class_weight is None else criterion.class_weight
            dz -= narrow * dz.dtype.type(share) * weight
        dz[at, target] -= s * of_target
    dz[at, part.top] = dtop
    if part.slope is not None:
        dz *= part.slope
    np.divide(dz, dz.dtype.type(criterion.temperature), out=dx)


class _Compared(NamedTuple):
    """A block of rows beside its targets."""

    rows: object
    top: object  # (B,) the class of the largest z
    below: object  # (B, V) z_m - z
    exp: object  # (B, V) exp(-below), 0 at the top
    rest: object  # (B,) its sum
    lse: object  # (B,)
    loss: object  # (B,)
    mass: object  # (B,) or scalar: sum_v q_v
    slope: object  # (B, V) dz/dx times the temperature, or None where it is one


def _compare(x, criterion, rows):
    at = np.arange(len(x))
    temperature, cap = criterion.temperature, criterion.softcap
    top = np.argmax(x, axis=1)
    slope = None
    if cap is None:
        largest = x[at, top]
        below = largest[:, None] - x
        if temperature != 1:
            below /= x.dtype.type(temperature)
        largest = largest.astype(np.float64) / temperature
    else:  # in float64: where tanh is flat, the differences of its values are of the size of float32's rounding
        z = np.tanh(x.astype(np.float64) / (temperature * cap))
        slope = (1 - z * z).astype(x.dtype)
        z *= cap
        largest = z[at, top]
        below = (largest[:, None] - z).astype(x.dtype)
    exp = np.exp(-below)
    exp[at, top] = 0
    rest = exp.sum(axis=1, dtype=np.float64) + below[at, top]  # z_m - z_m: 0, or NaN where it is infinite
    log_total = np.log1p(rest)
    eps, weight = criterion.label_smoothing, criterion.class_weight
    even = 0.0
    if eps:
        even = eps / x.shape[1] * _sum_below(1 if weight is None else weight, below)
        mass_even = eps * (1.0 if weight is None else weight.mean(dtype=np.float64))
    else:
        mass_even = 0.0
    if criterion.target is None:
        weighted = criterion.probabilities[rows]
        if weight is not None:
            weighted = weighted * weight
        mass = (1 - eps) * weighted.sum(axis=1, dtype=np.float64) + mass_even
        loss = (1 - eps) * _sum_below(weighted, below) + even + mass * log_total
    else:
        target = criterion.target[rows]
        of_target = (1 - eps) * _weight_of(criterion, target)
        mass = of_target + mass_even
        apart = below[at, target].astype(np.float64)
        loss = np.where(of_target == 0, 0, of_target * apart) + even + mass * log_total
    return _Compared(rows, top, below, exp, rest, largest + log_total, loss, mass, slope)


def _tell(part, criterion, stats):
    if stats is None:
        return
    rows, log_total = part.rows, np.log1p(part.rest)
    if criterion.target is None:
        probabilities = criterion.probabilities[rows]
        nll = _sum_below(probabilities, part.below) + probabilities.sum(axis=1, dtype=np.float64) * log_total
    else:
        nll = part.below[np.arange(len(part.top)), criterion.target[rows]] + log_total
    stats.nll[rows] = nll
    stats.entropy[rows] = log_total + _sum_below(part.exp, part.below) / (1 + part.rest)
    stats.argmax[rows] = part.top


def _weight_of(criterion, classes):
    """Return the float64 weights of `classes`."""
    return 1.0 if criterion.class_weight is None else criterion.class_weight[classes].astype(np.float64)


def _sum_below(weight, below):  # (B, V), (V,) or 1; (B, V)
    """Return sum_v weight_v below_v in float64, with 0 inf = 0."""
    subscripts = "nv,nv->n" if np.ndim(weight) == 2 else "v,nv->n"
    weight = np.broadcast_to(np.asarray(weight, below.dtype), np.shape(weight) or below.shape[1:])
    total = np.einsum(subscripts, weight, below, dtype=np.float64)
    bad = np.flatnonzero(np.isnan(total))
    for n in bad:
        row = weight[n] if weight.ndim == 2 else weight
        total[n] = np.dot(row, np.where(row == 0, 0, below[n]).astype(np.float64))
    return total
