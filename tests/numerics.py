"""How close is close: error budgets and finite differences for the tests of operations."""

from __future__ import annotations

import numpy as np


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
