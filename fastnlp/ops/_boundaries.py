"""Bounds of buckets: those that are given, and those that pad least."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from fastnlp import _arrays
from fastnlp._arrays import Array
from fastnlp._checks import integer


def is_number(boundaries: Any) -> bool:
    """Tell whether `boundaries` says how many bounds there shall be, not which."""
    return not isinstance(boundaries, list | tuple) and np.ndim(boundaries) == 0


def checked_boundaries(boundaries: Any) -> Array:
    """Return increasing bounds as an int64 array.

    Raises
    ------
    TypeError
        Not integers.
    ValueError
        Not one axis, or a bound that is negative or not above the one before.
    """
    bounds = _arrays.integers("boundaries", boundaries)
    if bounds.size and bounds[0] < 0:
        raise ValueError(f"boundaries must not be negative, got {int(bounds[0])} first")
    falls = np.flatnonzero(bounds[1:] <= bounds[:-1])
    if falls.size:
        at = int(falls[0])
        raise ValueError(
            f"boundaries must increase, got {int(bounds[at])} before {int(bounds[at + 1])}: "
            "pass each bound once, the smallest first"
        )
    return bounds


def optimal_boundaries(kernels: ModuleType, padded: Array, counts: Array, number: Any) -> Array:
    """Return the bounds, so many or one for each length if those are fewer, for which padding to them is least.

    Parameters
    ----------
    padded
        Lengths, ``(D,)`` int64, not decreasing.
    counts
        How many items have each, ``(D,)`` int64.
    number
        The number of bounds.

    Raises
    ------
    TypeError
        `number` is no integer.
    ValueError
        `number` is below 1.
    """
    number = integer("boundaries", number, least=1)
    present = counts > 0
    sizes, first = np.unique(padded[present], return_index=True)
    bounds = np.empty(min(number, sizes.size), np.int64)
    if bounds.size:
        kernels.optimal_boundaries(sizes, np.add.reduceat(counts[present], first), bounds)
    return bounds
