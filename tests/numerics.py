"""How close is close: error budgets, finite differences and plain definitions for the tests of operations."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.special


def assert_within_budget(actual, truth, naive, *, ulps=4.0):
    """Assert that `actual` is as near the float64 `truth` as `naive` code of the same dtype, plus a floor of a few ulp.

    Errors are measured against the largest entry of the truth.
    """
    actual, truth, naive = (np.asarray(a) for a in (actual, truth, naive))
    assert actual.shape == truth.shape
    assert actual.dtype == naive.dtype
    assert np.isfinite(truth).all()
    assert truth.size == 0 or np.abs(truth).max() > 0, "a degenerate test input"
    size = np.abs(truth).max(initial=0.0)
    allowed = np.abs(naive - truth).max(initial=0.0) + ulps * np.finfo(actual.dtype).eps * size
    error = np.abs(actual - truth).max(initial=0.0)
    assert error <= allowed, f"error {error:.3g} is over the budget {allowed:.3g} (largest entry {size:.3g})"


def numeric_gradient(function, x, dy, *, step=1e-6):
    """Return sum(dy * d function / dx) by central differences in float64."""
    x = np.array(x, np.float64)
    grad = np.empty_like(x)
    for index in np.ndindex(x.shape):
        kept = x[index]
        x[index] = kept + step
        above = np.sum(dy * function(x))
        x[index] = kept - step
        below = np.sum(dy * function(x))
        x[index] = kept
        grad[index] = (above - below) / (2 * step)
    return grad


def strided(x):
    """Return a copy of `x` whose last axis is not contiguous."""
    between = np.nan if x.dtype.kind == "f" else np.iinfo(x.dtype).max
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1] + 1), between, x.dtype)
    view = wide[..., 1 : 2 * x.shape[-1] + 1 : 2]
    view[...] = x
    return view


def frozen(x):
    """Return a read-only copy of `x`."""
    copy = x.copy()
    copy.flags.writeable = False
    return copy


class Naive(NamedTuple):
    """A cross-entropy by its definition, every step an array."""

    loss: Any
    dlogits: Any  # (N, C)
    lse: Any  # (N,)
    nll: Any  # (N,)
    entropy: Any  # (N,)
    z_loss: Any


def naive_cross_entropy(
    x,
    target,
    *,
    weight=None,
    ignore_index=-100,
    reduction="mean",
    label_smoothing=0.0,
    temperature=1.0,
    softcap=None,
    z_loss=0.0,
    token_weight=None,
    dloss=1.0,
):
    """Return the cross-entropy of logits (N, C), its gradient times `dloss`, and its statistics."""
    n, classes = x.shape
    z, slope = x / temperature, 1 / temperature
    if softcap is not None:
        squashed = np.tanh(z / softcap)
        z, slope = softcap * squashed, (1 - squashed**2) / temperature
    w = np.ones(classes) if weight is None else np.asarray(weight)
    u = np.ones(n) if token_weight is None else np.asarray(token_weight, np.float64)
    if target.ndim == 2:
        counts, hot, of_rows = u > 0, target, np.ones(n)
        q = w * ((1 - label_smoothing) * target + label_smoothing / classes)
    else:
        counts = (target != ignore_index) & (u > 0)
        classes_of_rows = np.where(target == ignore_index, 0, target)
        hot, of_rows = (np.arange(classes) == classes_of_rows[:, None]).astype(np.float64), w[classes_of_rows]
        q = (1 - label_smoothing) * of_rows[:, None] * hot + label_smoothing / classes * w
    u = np.where(counts, u, 0)
    lse = scipy.special.logsumexp(z, axis=1)
    surprise = lse[:, None] - z
    p = np.exp(-surprise)
    losses, squared = (q * surprise).sum(axis=1), z_loss * lse**2
    over, over_squared = 1.0, 1.0
    if reduction == "mean":
        over, over_squared = (of_rows * u).sum(), u.sum()
    terms, squares = u * losses, u * squared
    up = dloss * u / over
    up_squared = dloss * u / over_squared * z_loss * 2 * lse
    dz = up[:, None] * (q.sum(axis=1, keepdims=True) * p - q) + up_squared[:, None] * p
    if reduction != "none":
        terms, squares = terms.sum() / over, squares.sum() / over_squared
    told = (lse, (hot * surprise).sum(axis=1), (p * surprise).sum(axis=1))
    return Naive(terms + squares, dz * slope, *(np.where(counts, a, 0) for a in told), squares)


def subsets(options):
    """Return every choice of some of the `options` as a dict, none and all included."""
    chosen = [{}]
    for name, value in options.items():
        chosen += [{**choice, name: value} for choice in chosen]
    return chosen


def cross_entropy_options(rng, n, classes, dtype=np.float64):
    """Return a value for each option of a cross-entropy of `n` rows; a row and a class have no weight."""
    weight, token_weight = rng.uniform(0.2, 2, classes).astype(dtype), rng.uniform(0.2, 2, n)
    weight[classes // 2] = token_weight[n // 2] = 0
    return {
        "weight": weight,
        "label_smoothing": 0.1,
        "temperature": 0.7,
        "softcap": 3.0,
        "z_loss": 0.02,
        "token_weight": token_weight,
    }


def class_targets(rng, n, classes, kind, dtype=np.float64):
    """Return targets of `n` rows: "indices", the second row ignored, or "distributions", which do not sum to one."""
    if kind == "distributions":
        target = rng.uniform(0, 1, (n, classes)).astype(dtype)
        target[:, classes // 3] = 0
        return target
    target = rng.integers(0, classes, n)
    target[1] = -100
    return target
